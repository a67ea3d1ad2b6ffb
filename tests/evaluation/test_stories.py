"""The best and the worst videos are chosen by all that was detected in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.evaluation.samples import CLASSES, evidence
from tsp_core.evaluation.detection.instances import Detections, Instances, concatenate
from tsp_core.evaluation.stories import tell_stories


def concatenated(*parts: Instances) -> Instances:
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in vars(parts[0])}
    return Instances(**columns)


def test_stories_are_of_the_best_and_the_worst_videos() -> None:
    stories = tell_stories(evidence(), protocol="thumos14", each=2)
    assert stories is not None
    averages = [story.average_f1 for story in stories.videos]
    assert averages == sorted(averages, reverse=True)
    assert [story.is_best for story in stories.videos] == [True, True, False, False]
    assert len({story.sequence.video for story in stories.videos}) == 4
    assert 0 < stories.best_f1 <= 1
    for story in stories.videos:
        assert (story.detections.scores >= stories.min_score).all()
        assert len(story.is_right) == len(story.detections)
        assert set(story.actions.videos) == {story.sequence.video}
        assert story.actionness is not None
        assert ((story.actionness[1] >= 0) & (story.actionness[1] <= 1)).all()


def test_false_detections_of_other_classes_make_a_video_worse() -> None:
    found = evidence()
    assert found.material is not None
    part = found.material.evaluation
    first, second = sorted(part.sequences)[:2]
    of_first = part.actions.take(part.actions.videos == first)
    of_second = part.actions.take(part.actions.videos == second)
    only = replace(part, actions=concatenated(of_first, of_second))
    right = [
        Detections(**vars(item), scores=np.full(len(item), 0.9)) for item in (of_first, of_second)
    ]
    absent = replace(
        right[0], label_indices=np.full(len(of_first), len(CLASSES))
    )  # a class of none
    detections = concatenate([*right, absent])
    localized = replace(found.localization.localized["detector"], detections=detections)
    told = tell_stories(
        replace(
            found,
            material=replace(found.material, evaluation=only),
            localization=replace(found.localization, localized={"detector": localized}),
        ),
        protocol="thumos14",
        each=1,
    )
    assert told is not None
    best, worst = told.videos
    assert (best.sequence.video, best.average_f1) == (second, 1.0)
    assert worst.sequence.video == first
    assert worst.average_f1 == pytest.approx(2 / 3)


def test_stories_leave_out_what_lies_on_ambiguous_segments() -> None:
    found = evidence()
    assert found.material is not None
    part = found.material.evaluation
    video = sorted(part.sequences)[0]
    duration = part.sequences[video].duration_seconds
    ambiguous = Instances(
        videos=np.array([video], dtype=object),
        label_indices=np.array([-1]),
        t_start=np.array([0.0]),
        t_end=np.array([duration]),
    )
    unclear = replace(found.material, evaluation=replace(part, ambiguous=ambiguous))
    with_ambiguous = replace(found, material=unclear)
    options = {"protocol": "thumos14", "each": 4}
    counted = tell_stories(with_ambiguous, **options)
    ignored = tell_stories(with_ambiguous, **options, ignore_ambiguous=True)
    assert counted is not None
    assert ignored is not None
    assert ignored.best_f1 >= counted.best_f1
    (own,) = (story for story in ignored.videos if story.sequence.video == video)
    assert own.is_right.all()
    (before,) = (story for story in counted.videos if story.sequence.video == video)
    assert own.average_f1 >= before.average_f1

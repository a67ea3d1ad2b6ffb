"""Scores of the heads against numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from tsp_core.evaluation.heads import HeadScore, HeadTally, score_head, score_predictions
from tsp_core.schemas import predictions_schema

LABELS = ("a", "b", "c")


def _scored() -> HeadScore:
    """Truth a a a b b, predicted a a b b c, and a background clip."""
    predicted = [0, 0, 1, 1, 2, 0]
    truth = np.array([0, 0, 0, 1, 1, -1])
    score = score_head(np.eye(3)[predicted], truth, LABELS)
    assert score is not None
    return score


def test_accuracies_by_hand() -> None:
    score = _scored()
    assert score.num_clips == 5
    assert score.accuracy == pytest.approx(3 / 5)
    assert score.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)  # c has no clips
    assert score.chance == pytest.approx(3 / 5)
    np.testing.assert_array_equal(score.confusion, [[2, 1, 0], [0, 1, 1], [0, 0, 0]])


def test_classes_by_hand() -> None:
    a, b, c = _scored().classes
    assert (a.num_clips, a.num_predicted, a.recall, a.precision) == (3, 2, pytest.approx(2 / 3), 1)
    assert (b.num_clips, b.num_predicted, b.recall, b.precision) == (2, 2, 0.5, 0.5)
    assert (c.num_clips, c.num_predicted, c.recall, c.precision) == (0, 1, None, 0.0)


def test_a_score_is_plain_json() -> None:
    values = json.loads(json.dumps(_scored().as_json(), allow_nan=False))
    assert values["classes"][2] == {
        "label": "c",
        "num_clips": 0,
        "num_predicted": 1,
        "recall": None,
        "precision": 0.0,
    }
    assert values["confusion"] == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_top_five_where_there_are_many_classes() -> None:
    labels = [str(index) for index in range(20)]
    logits = np.tile(np.arange(20.0), (3, 1))  # class 19 first, then 18, ...
    score = score_head(logits, np.array([19, 15, 14]), labels)
    assert score is not None
    assert score.accuracy == pytest.approx(1 / 3)
    assert score.top_k_accuracy == {5: pytest.approx(2 / 3)}
    assert _scored().top_k_accuracy == {}


def test_parts_are_scored_as_the_whole() -> None:
    generator = np.random.default_rng(0)
    labels = [str(index) for index in range(12)]
    logits, truth = generator.normal(size=(50, 12)), generator.integers(-1, 12, 50)
    tally = HeadTally(labels)
    for part in np.split(np.arange(50), [7, 7, 30]):
        tally.add(logits[part], truth[part])
    whole, parts = score_head(logits, truth, labels), tally.score()
    assert whole is not None
    assert parts is not None
    assert parts.as_json() == whole.as_json()
    assert HeadTally(labels).score() is None


def test_without_labelled_clips_there_is_no_score() -> None:
    assert score_head(np.zeros((2, 3)), np.array([-1, -1]), LABELS) is None
    assert score_head(np.zeros((0, 3)), np.array([], dtype=np.int64), LABELS) is None


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits: shape \(2, 2\), expected \(2, 3\)"):
        score_head(np.zeros((2, 2)), np.array([0, 1]), LABELS)


def _predictions(action: list[list[float] | None], region: list[list[float] | None]) -> pa.Table:
    count = len(region)
    columns = {
        "video": ["v"] * count,
        "label_index": [0, 1, -1, 1][:count],
        "region": [0, 0, 1, 0][:count],
        "start_seconds": [0.0] * count,
        "action_logits": action,
        "region_logits": region,
    }
    return pa.table(columns, schema=predictions_schema(2).with_metadata())


def test_each_head_is_scored_on_the_clips_that_were_read() -> None:
    table = _predictions(
        [[2.0, 1.0], [2.0, 1.0], [0.0, 0.0], None], [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], None]
    )
    scores = score_predictions(table, ("walk", "run"))
    assert list(scores) == ["action", "region"]
    assert (scores["action"].num_clips, scores["action"].accuracy) == (2, 0.5)
    assert (scores["region"].num_clips, scores["region"].accuracy) == (3, pytest.approx(2 / 3))
    assert scores["region"].labels == ("Action", "No action")


def test_a_head_without_logits_is_absent() -> None:
    table = _predictions([None] * 3, [[1.0, 0.0]] * 3)
    assert list(score_predictions(table, ("walk", "run"))) == ["region"]
    assert score_predictions(_predictions([], []), ("walk", "run")) == {}

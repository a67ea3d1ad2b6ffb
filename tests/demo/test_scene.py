"""What the demo shows: reproducible, continuous, and told apart by motion alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tsp_core.demo.scene import (
    CLASSES,
    Scene,
    draw_frame,
    draw_ground,
    plan_scene,
    pose_at,
)

NUM_SCENES = 120


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [plan_scene(0, index) for index in range(NUM_SCENES)]


def _track(scene: Scene, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """x, y and logarithm of the size at each time, [N, 3]."""
    poses = [pose_at(scene, float(time)) for time in times]
    return np.array([(pose.x, pose.y, np.log(pose.size)) for pose in poses])


def test_a_scene_depends_on_seed_and_index_alone() -> None:
    assert plan_scene(3, 7).parts == plan_scene(3, 7).parts
    assert plan_scene(3, 7).parts != plan_scene(4, 7).parts
    assert plan_scene(3, 7).parts != plan_scene(3, 8).parts


def test_frames_are_pure_functions() -> None:
    scene = plan_scene(0, 1)
    ground = draw_ground(scene, 64, 48)
    before = ground.copy()
    first, other = draw_frame(scene, ground, 5, 0.5), draw_frame(scene, ground, 6, 0.5)
    again = draw_frame(scene, ground, 5, 0.5)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(ground, before)
    assert first.shape == (48, 64, 3)
    assert first.dtype == np.uint8
    assert (first != other).any(), "the camera's noise differs from frame to frame"


def test_parts_cover_the_video_and_actions_stand_between_background(scenes: list[Scene]) -> None:
    for scene in scenes:
        starts = [part.start_seconds for part in scene.parts]
        ends = [part.end_seconds for part in scene.parts]
        assert starts == [0.0, *ends[:-1]]
        assert [part.is_action for part in scene.parts] == [
            position % 2 == 1 for position in range(len(scene.parts))
        ]
        assert all(1.1 < end - start < 6.1 for start, end in zip(starts, ends, strict=True))


def test_background_is_about_half_and_classes_are_even(scenes: list[Scene]) -> None:
    parts = [part for scene in scenes for part in scene.parts]
    seconds = sum(part.end_seconds - part.start_seconds for part in parts)
    action = sum(part.end_seconds - part.start_seconds for part in parts if part.is_action)
    assert 0.35 < action / seconds < 0.5
    counts = [sum(part.motion == label for part in parts) for label in CLASSES]
    assert min(counts) > 0.8 * max(counts)


def test_the_sprite_never_jumps(scenes: list[Scene]) -> None:
    for scene in scenes[:20]:
        steps = np.abs(np.diff(_track(scene, np.arange(0, scene.duration_seconds, 0.01)), axis=0))
        assert steps.max() < 0.05  # frame heights (or log size) in 10 ms


def _nearest_center_accuracy(
    values: NDArray[np.float64], labels: NDArray[np.int64], is_train: NDArray[np.bool_]
) -> float:
    """Accuracy on the other samples of the class centre that is nearest in normalised values."""
    values = (values - values[is_train].mean(axis=0)) / values[is_train].std(axis=0)
    centers = np.stack(
        [values[is_train & (labels == index)].mean(axis=0) for index in range(len(CLASSES))]
    )
    distances = np.linalg.norm(values[~is_train, None] - centers, axis=2)
    return float((distances.argmin(axis=1) == labels[~is_train]).mean())


def test_motion_tells_the_class_and_a_single_frame_does_not(scenes: list[Scene]) -> None:
    singles, motions, labels, is_train = [], [], [], []
    for scene in scenes:
        for part in scene.parts:
            if part.is_action:
                middle = (part.start_seconds + part.end_seconds) / 2
                track = _track(scene, middle + np.arange(-0.5, 0.5, 0.05))
                steps = np.log(np.abs(np.diff(track, axis=0)).mean(axis=0) + 1e-3)
                turns = (np.diff(np.sign(np.diff(track[:, :2], axis=0)), axis=0) != 0).sum(axis=0)
                singles.append(track[0])
                motions.append([*steps, *turns])
                labels.append(CLASSES.index(part.motion))
                is_train.append(scene.index % 2 == 0)
    index, train = np.array(labels), np.array(is_train)
    assert _nearest_center_accuracy(np.array(singles), index, train) < 0.35  # chance is 0.2
    assert _nearest_center_accuracy(np.array(motions), index, train) > 0.8

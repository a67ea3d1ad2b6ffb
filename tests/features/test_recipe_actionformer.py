"""What ActionFormer and TriDet read; `tests/downstream` runs ActionFormer itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.features.actionformer_reader import Reader, load
from tests.features.samples import VIDEOS, action, context, facts, feature_rows, write_recipe
from tsp_core.config import ClipConfig
from tsp_core.features.recipes import RECIPES
from tsp_core.features.recipes.actionformer import EPOCHS, Schedule
from tsp_core.features.recipes.base import Action, RecipeContext
from tsp_core.features.rows import nominal_centers

CONFIGS = ("ours_tsp.yaml", "ours_tsp_tridet.yaml")


def recipe(tmp_path: Path, **changes: Any) -> Path:
    return write_recipe(tmp_path / "out", "actionformer", context(**changes))


@pytest.mark.parametrize("config", CONFIGS)
def test_the_reader_finds_features_and_segments_of_both_splits(tmp_path: Path, config: str) -> None:
    folder = recipe(tmp_path)
    assert load(folder, config)["dataset_name"] == "anet"
    train, valid = (Reader(folder, config, training=training) for training in (True, False))
    assert sorted(train.items) == ["v_a"]  # all actions of "b" begin after its features end
    assert sorted(valid.items) == ["v_c"]
    np.testing.assert_array_equal(train.features("v_a"), feature_rows("v_a", 5).features)
    segments, labels = train.truth("v_a")
    np.testing.assert_allclose(segments, [[(15 - 8) / 16, (52.5 - 8) / 16]])
    assert labels.tolist() == [train.label_ids["class 0"]]
    segments, labels = valid.truth("v_c")
    np.testing.assert_allclose(segments, [[-0.5 / 16, (30 - 8) / 16]], atol=1e-6)
    assert labels.tolist() == [valid.label_ids["class 2"]]
    assert valid.items["v_c"]["duration"] == facts(VIDEOS["v_c"]).duration_seconds


@pytest.mark.parametrize(("stride", "length", "rate"), [(16, 16, 15.0), (1, 16, 15.0), (4, 9, 10)])
def test_the_reader_places_rows_at_the_centres_of_clips(
    tmp_path: Path, stride: int, length: int, rate: float
) -> None:
    clip = ClipConfig(length=length, frame_rate=rate)
    reader = Reader(recipe(tmp_path, clip=clip, stride=stride), CONFIGS[0], training=False)
    rows = np.arange(2)
    np.testing.assert_allclose(reader.seconds(rows), nominal_centers(2, clip, stride))


@pytest.mark.parametrize("stride", [4, 16, 40])
def test_a_video_is_left_out_of_training_only_where_a_reader_would_fail(
    tmp_path: Path, stride: int
) -> None:
    """150 videos of three rows, each with one action anywhere."""
    end = (3 * stride + 16) / 15  # the readers train on nothing that starts later
    random = np.random.default_rng(stride)
    starts = random.uniform(0, end + 0.5, 150)
    lengths = random.choice([5e-4, 1e-3, 0.05, 1.0, 20.0], 150)
    lengths[:50] = 2 * (end - starts[:50])  # half of it is outside, but for rounding
    segments = {
        f"v_{i}": (t, t + length) for i, (t, length) in enumerate(zip(starts, lengths, strict=True))
    }
    segments = {video: (t, end) for video, (t, end) in segments.items() if end >= t}
    made = context(
        stride=stride,
        subsets=dict.fromkeys(segments, "training"),
        actions={video: (action(0, *segment),) for video, segment in segments.items()},
    )
    write(tmp_path / "out", made, dict.fromkeys(segments, 3))
    reader = Reader(tmp_path / "out", CONFIGS[0], training=True)
    assert all(len(reader.truth(video)[0]) == 1 for video in reader.items)  # else it would fail

    def can_be_trained_on(start: float, stop: float) -> bool:
        covered = (min(stop, end) - start) / (stop - start)
        starts_in_time = start < end - 8 / 15
        return starts_in_time and stop - start >= 1e-3 and covered > 0.5 + 1e-3

    assert {video for video, segment in segments.items() if can_be_trained_on(*segment)} <= set(
        reader.items
    )


def test_every_video_has_its_file_whether_annotated_or_not(tmp_path: Path) -> None:
    folder = recipe(tmp_path)
    names = {path.stem for path in (folder / "data" / "ours" / "features").iterdir()}
    assert names == set(VIDEOS)


def test_labels_have_no_gap_and_those_of_validation_come_first(tmp_path: Path) -> None:
    """ActionFormer's evaluation maps the labels of validation to 0, 1, ... and no others."""
    folder = recipe(tmp_path)  # class 1 has no instance, class 0 none in validation
    assert Reader(folder, CONFIGS[0], training=True).label_ids == {"class 2": 0, "class 0": 1}
    assert load(folder, CONFIGS[0])["dataset"]["num_classes"] == 2


def write(folder: Path, made: RecipeContext, num_rows: dict[str, int]) -> dict[str, Any]:
    folder.mkdir()
    writer = RECIPES["actionformer"](folder, made)
    for video, count in num_rows.items():
        rows = feature_rows(video, count, stride=made.stride, clip=made.clip)
        writer.write(rows, facts(count))
    writer.close()
    return {config: load(folder, config) for config in CONFIGS}


@pytest.mark.parametrize("num_videos", [1, 2, 3, 13, 200, 999, 1000, 10_009])
def test_a_dataset_of_any_size_is_trained_long_enough(num_videos: int) -> None:
    schedule = Schedule(num_videos)
    steps_per_epoch = num_videos // schedule.batch_size  # the readers drop the last batch
    steps = steps_per_epoch * EPOCHS * schedule.longer
    assert steps >= 3500  # what is evaluated is the start by 0.999 ** steps
    assert schedule.longer == 1 or steps - steps_per_epoch * EPOCHS < 3500  # and no longer
    published = (schedule.batch_size, schedule.longer, schedule.learning_rate) == (16, 1, 0.001)
    assert published == (num_videos > 3500)  # the schedule for ActivityNet


@pytest.mark.parametrize("num_videos", [1, 3])
def test_the_configuration_trains_a_small_dataset(tmp_path: Path, num_videos: int) -> None:
    rows = {f"v_{index}": 2 for index in range(num_videos)}
    acts = (action(0, 0.0, 1.0),)
    made = context(subsets=dict.fromkeys(rows, "training"), actions=dict.fromkeys(rows, acts))
    for options in write(tmp_path / "out", made, rows).values():
        assert options["loader"]["batch_size"] == min(num_videos, 2)
        assert options["opt"]["epochs"] + options["opt"]["warmup_epochs"] >= 3500
        assert options["opt"]["learning_rate"] == 0.0001


@pytest.mark.parametrize("num_rows", [1, 96, 97, 192, 193, 384, 385, 2304, 2305, 30000])
def test_lengths_suit_the_models(tmp_path: Path, num_rows: int) -> None:
    configs = write(tmp_path / "out", context(), {"v_a": num_rows})
    for config, step in zip(CONFIGS, (384, 480), strict=True):
        length = configs[config]["dataset"]["max_seq_len"]
        assert length <= 2304
        assert length >= min(num_rows, 2304)
        buffer = configs[config]["model"]["max_buffer_len_factor"] * length
        padded = length if num_rows <= length else -(-num_rows // step) * step
        assert buffer >= padded  # points of the longest video in testing
        assert buffer % 32 == 0
    options = configs[CONFIGS[0]]
    for level, window in enumerate(options["model"]["n_mha_win_size"]):
        factor = 2**level * (window // 2 * 2 if window > 1 else 1)
        assert options["dataset"]["max_seq_len"] % factor == 0  # the model asserts this
    if num_rows > 192:
        assert options["model"]["n_mha_win_size"] == [25, 25, 25, 25, 25, -1]  # as published


def test_thumos14_uses_the_reader_of_thumos14_only_with_its_label_4(tmp_path: Path) -> None:
    video = "video_validation_0000051"
    names = ["a", "b", "c", "d", "CliffDiving"]
    acts = tuple(
        Action(label=name, label_index=i, t_start=0.0, t_end=1.0) for i, name in enumerate(names)
    )
    made = context(classes=tuple(names), subsets={video: "validation"}, actions={video: acts})
    assert write(tmp_path / "x", made, {video: 3})[CONFIGS[0]]["dataset_name"] == "thumos"
    made = context(classes=tuple(names), subsets={video: "validation"}, actions={video: acts[1:]})
    assert write(tmp_path / "y", made, {video: 3})[CONFIGS[0]]["dataset_name"] == "anet"

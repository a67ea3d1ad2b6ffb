from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.training.tiny import CLASSES, clips_table
from tsp_core.config import PretrainConfig
from tsp_core.errors import ConfigError
from tsp_core.schemas import CLIPS, table_from_rows
from tsp_core.training.checks import check_clips, check_device, check_settings

CLIPS_TABLE = clips_table([Path(f"v{number}.mp4") for number in range(3)])


def without(subset: str, region: int) -> pa.Table:
    gone = (pc.field("subset") == subset) & (pc.field("region") == region)
    return CLIPS_TABLE.filter(~gone)


@pytest.mark.parametrize("heads", ["tsp", "tac", "region"])
def test_a_set_is_fine_until_its_actions_are_taken_away(
    heads: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_clips(CLIPS_TABLE, PretrainConfig(heads=heads), CLASSES)
    assert caplog.text == ""
    with pytest.raises(ConfigError, match="no action segment"):
        check_clips(without("training", 0), PretrainConfig(heads=heads), CLASSES)


@pytest.mark.parametrize("key", ["train_subset", "valid_subset"])
def test_an_unknown_subset_is_refused(key: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"pretrain\.{key}: 'test': .* known subsets: training, validation"
    ):
        check_clips(CLIPS_TABLE, PretrainConfig(**{key: "test"}))


def test_an_index_without_clips_has_no_subsets() -> None:
    with pytest.raises(ConfigError, match="known subsets: none"):
        check_clips(CLIPS.with_metadata().empty_table(), PretrainConfig())


@pytest.mark.parametrize("heads", ["tsp", "region"])
def test_region_heads_need_background(heads: str) -> None:
    with pytest.raises(
        ConfigError, match=r"train_subset: 'training': no background segment .*heads: tac"
    ):
        check_clips(without("training", 1), PretrainConfig(heads=heads))
    check_clips(without("training", 1), PretrainConfig(heads="tac"))


@pytest.mark.parametrize("heads", ["tsp", "tac"])
def test_action_heads_need_actions_to_be_validated(heads: str) -> None:
    with pytest.raises(ConfigError, match=r"valid_subset: 'validation': no action segment"):
        check_clips(without("validation", 0), PretrainConfig(heads=heads))


def test_segments_that_hold_no_clip_do_not_count() -> None:
    column = pa.array(["too_short"] * CLIPS_TABLE.num_rows)
    table = CLIPS_TABLE.set_column(CLIPS_TABLE.schema.get_field_index("status"), "status", column)
    with pytest.raises(ConfigError, match="no action segment can hold a clip"):
        check_clips(table, PretrainConfig())


def test_a_class_that_is_validated_and_not_trained_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_clips(CLIPS_TABLE, PretrainConfig(), CLASSES)
    assert caplog.text == ""
    rows = CLIPS_TABLE.to_pylist()
    odd = next(row for row in rows if row["subset"] == "validation" and row["region"] == 0)
    classes = (*CLASSES, f"{CLASSES[odd['label_index']]}x")
    right, odd["label_index"] = CLASSES[odd["label_index"]], len(CLASSES)
    table = table_from_rows(rows, CLIPS)
    check_clips(table, PretrainConfig(heads="region"), classes)
    assert caplog.text == ""
    check_clips(table, PretrainConfig(), classes)
    assert (
        f"the class {right + 'x'!r} has no action to train on, and 1 in the subset" in caplog.text
    )
    assert f"did you mean {right!r}?" in caplog.text


def test_learning_rates_of_zero_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing would be trained"):
        check_settings(PretrainConfig(layers_lr=0, heads_lr=0))
    check_settings(PretrainConfig(layers_lr=0, heads_lr=0, stem_lr=1e-4))


def test_tensorboard_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pretrain\.tensorboard: True: .*pip install"):
        check_settings(PretrainConfig(tensorboard=True))


def test_synchronised_batch_norm_needs_cuda() -> None:
    config = PretrainConfig(batch_norm="sync", processes=2)
    with pytest.raises(ConfigError, match=r"batch_norm: 'sync': .*on CUDA devices only"):
        check_device(config, "cpu", 0)
    check_device(config, "cuda", 2)
    check_device(config.model_copy(update={"processes": 1}), "cpu", 0)


def test_each_process_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"processes: 4: this machine has 2 CUDA devices"):
        check_device(PretrainConfig(processes=4), "cuda", 2)
    check_device(PretrainConfig(processes=4), "cpu", 0)

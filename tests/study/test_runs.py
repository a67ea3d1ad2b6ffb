"""The runs of a study: what they share, what differs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.study.made_up import VARIANTS, config
from tsp_core.config.io import load_config
from tsp_core.errors import ConfigError
from tsp_core.study.runs import initial_run, variant_runs


def test_every_variant_with_every_seed_and_names_of_their_own() -> None:
    runs = variant_runs(config())
    assert [(run.variant, run.seed) for run in runs] == [
        ("tac", 0),
        ("tsp", 0),
        ("tac", 1),
        ("tsp", 1),
    ]
    assert len({run.config.name for run in runs}) == len(runs)
    for run in runs:
        assert run.config.pretrain.seed == run.config.evaluate.seed == run.seed
        assert not run.config.study.variants
    assert [run.config.pretrain.heads for run in runs] == ["tac", "tsp"] * 2
    assert [run.config.gvf.pooling for run in runs] == ["max", "avg"] * 2


def test_runs_share_all_that_no_variant_changes() -> None:
    first, *others = variant_runs(config())
    for run in others:
        for section in ("clip", "encoder", "ingest", "annotate", "index", "export", "runtime"):
            assert getattr(run.config, section) == getattr(first.config, section)


def test_variants_start_from_what_the_initial_run_trained() -> None:
    study = config(initial={"pretrain": {"heads": "tac", "epochs": 3}})
    initial = initial_run(study)
    assert initial is not None
    assert (initial.config.pretrain.epochs, initial.config.encoder.weights) == (3, "random:0")
    runs = variant_runs(study, initial_weights="/store/pretrain/1/best.pth")
    assert {run.config.encoder.weights for run in runs} == {"/store/pretrain/1/best.pth"}
    assert {run.config.pretrain.epochs for run in runs} == {8}
    assert initial_run(config()) is None


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"baseline": "tcp"}, r"baseline 'tcp' is not one of the variants \(tac, tsp\)"),
        ({"seeds": [1, 1]}, r"seeds \[1, 1\]: give at least one, and each once"),
        ({"seeds": []}, "give at least one"),
        ({"seeds": [-1]}, "greater than or equal to 0"),
        ({"variants": {"initial": {}}}, "a variant cannot be called 'initial'"),
        ({"variants": {"a b": {}}}, "should match pattern"),
        ({"variants": {"a": {"study": {}}}}, "leave 'study' out"),
        ({"variants": {"a": {"pretrain": {"epoch": 1}}}}, "study.variants.a: pretrain.epoch: unkn"),
        ({"variants": {"a": {"name": "x"}}}, "should be a valid dictionary"),
        ({"initial": {"pretrain": {"heads": "no"}}}, "study.initial: pretrain.heads: 'no'"),
        ({"initial": {"pretrain": {"hedas": "tac"}}}, "study.initial: pretrain.hedas: unknown"),
    ],
)
def test_a_wrong_study_is_refused_before_anything_runs(
    study: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**study)


def test_a_study_needs_variants() -> None:
    with pytest.raises(ConfigError, match=r"study\.variants: there are none; name what is to be"):
        variant_runs(config(variants={}))


def test_the_first_variant_is_the_baseline_unless_another_is_named() -> None:
    assert config().study.compared_with == "tac"
    assert config(baseline="tsp").study.compared_with == "tsp"


def test_paths_of_variants_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "root: store\nstudy:\n  initial: {encoder: {weights: ./start.pth}}\n"
        "  variants:\n    a: {gvf: {file: gvfs.h5}}\n    b: {encoder: {weights: kinetics}}\n"
    )
    study = load_config(str(path)).study
    assert study.initial == {"encoder": {"weights": str(tmp_path / "start.pth")}}
    assert study.variants["a"] == {"gvf": {"file": str(tmp_path / "gvfs.h5")}}
    assert study.variants["b"] == {"encoder": {"weights": "kinetics"}}


def test_assignments_change_one_variant_and_leave_the_others(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"root: store\nstudy: {{variants: {VARIANTS}}}\n".replace("'", '"'))
    changed = load_config(str(path), assignments=["study.variants.tsp.pretrain.epochs=2"])
    assert changed.study.variants["tsp"] == {"gvf": {"pooling": "avg"}, "pretrain": {"epochs": 2}}
    assert changed.study.variants["tac"] == VARIANTS["tac"]

"""From exported features to figures: what there is is measured, what is not there is said."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests.evaluation.localizers.made_up import STRIDE, made_up, sequence
from tests.evaluation.samples import (
    CLASSES,
    CONFIG,
    evidence,
    export_of,
    material,
    segments_of,
    segments_table,
)
from tsp_core.config import EvaluateConfig
from tsp_core.evaluation.detection.instances import Instances, detections_from_table
from tsp_core.evaluation.evidence import Evidence, measure_features, no_evidence
from tsp_core.evaluation.heads import region_auc_of
from tsp_core.evaluation.localize import detector_settings
from tsp_core.evaluation.localizers.sequences import FeatureSequence
from tsp_core.evaluation.material import Material, gather_material
from tsp_core.evaluation.row_logits import HeadsOnRows, heads_on_rows
from tsp_core.evaluation.scoring import TIOU
from tsp_core.evaluation.stories import tell_stories
from tsp_core.features.gvf import GvfTable
from tsp_core.model.encoders import build_encoder, feature_size
from tsp_core.model.heads import Heads, TSPModel
from tsp_core.schemas import predictions_schema

Data = tuple[dict[str, FeatureSequence], Instances]
QUICK = EvaluateConfig(detector_epochs=1, detector_width=8)


def gathered(
    training: Data | None, evaluated: Data, config: EvaluateConfig = QUICK, **options: Any
) -> Material:
    """Material of two sets of videos."""
    sequences, rows = dict(evaluated[0]), segments_of("validation", evaluated[1])
    if training is not None:
        sequences |= training[0]
        rows += segments_of("training", training[1])
    return gather_material(
        export_of(sequences, clip_seconds=options.pop("clip_seconds", 2 * STRIDE)),
        segments_table(rows),
        classes=options.pop("classes", CLASSES),
        train_subset="training",
        config=config,
    )


def measured(
    material: Material, config: EvaluateConfig = QUICK, heads: HeadsOnRows | None = None
) -> Evidence:
    return measure_features(
        material, heads or HeadsOnRows(), config, lambda unit, done, total: None
    )


def only_label_0(data: Data) -> Data:
    sequences, actions = data
    labels = np.zeros_like(actions.label_indices)
    return sequences, Instances(
        videos=actions.videos, label_indices=labels, t_start=actions.t_start, t_end=actions.t_end
    )


def test_localizers_find_the_actions() -> None:
    found = evidence()
    assert found.headline == "detector"
    assert found.scores["probes"].average_precision["thumos14"].mean > 0.7
    assert found.localization.probes is not None
    assert found.localization.probes.region_auc > 0.8
    assert found.localization.localized["probes"].actionness_from == "probe"


def test_figures_are_plain_json_and_name_what_they_rest_on() -> None:
    values = json.loads(json.dumps(evidence().as_json(CONFIG), allow_nan=False))
    assert values["settings"]["training"]["videos_used"] == 10
    assert values["settings"]["evaluation"]["videos"] == 8
    assert values["settings"]["rows"] == {"every": 1, "step_seconds": 0.5, "max_rows": 100_000}
    assert values["settings"]["detector"]["epochs"] == 12
    scores = values["localizers"]["detector"]
    for protocol, thresholds in TIOU.items():
        by_tiou = scores["map"][protocol]["map_by_tiou"]
        assert [float(key) for key in by_tiou] == pytest.approx(thresholds)
        average = scores["map"][protocol]["average_map"]
        assert average == pytest.approx(np.mean(list(by_tiou.values())))
    assert set(scores["by_length"]) == {"coverage", "seconds", "quantiles"}
    assert 0 < scores["proposals"]["area"] <= 0.99
    assert values["probes"]["region_auc"] is not None
    assert values["sensitivity"]["num_rows"] == values["settings"]["evaluation"]["rows"]


def test_equal_seeds_give_equal_detections_whatever_the_threads() -> None:
    tables = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            tables.append(measured(material(QUICK), QUICK).detections())
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert tables[0].equals(tables[1])
    assert set(tables[0]["localizer"].to_pylist()) == {"probes", "detector"}
    own = detections_from_table(tables[0], localizer="probes")
    assert 0 < len(own) < len(tables[0])


@pytest.mark.parametrize(("num_videos", "epochs"), [(1, 400), (9, 200), (160, 20), (5000, 20)])
def test_few_videos_are_passed_over_more_often(num_videos: int, epochs: int) -> None:
    assert detector_settings(EvaluateConfig(), num_videos).epochs == epochs
    assert detector_settings(EvaluateConfig(detector_epochs=3), num_videos).epochs == 3


def test_dense_rows_are_thinned_and_times_that_do_not_rise_left_out() -> None:
    data = made_up(2, seed=0)
    found = gathered(data, made_up(2, seed=1), clip_seconds=16 * STRIDE)
    assert found.every == 4
    assert found.step_seconds == 4 * STRIDE
    name, dense = next(iter(data[0].items()))
    thinned = found.training.sequences[name]
    assert np.array_equal(thinned.features, dense.features[::4])
    assert thinned.stride_seconds == 4 * STRIDE
    export = export_of(data[0], clip_seconds=2 * STRIDE)
    centers = dict(export.centers_seconds)
    centers[name] = np.repeat(centers[name][::2], 2)[: len(dense)]
    twice = type(export)(manifest=export.manifest, centers_seconds=centers, read=export.read)
    rows = segments_table(segments_of("training", data[1]))
    material = gather_material(twice, rows, classes=CLASSES, train_subset="training", config=QUICK)
    assert np.array_equal(material.training.sequences[name].features, dense.features[::2])


@pytest.mark.parametrize("max_rows", [1, 150, 400, 10_000])
def test_training_stays_within_its_budget_of_rows(max_rows: int) -> None:
    config = EvaluateConfig(max_rows=max_rows, localizers=(), sensitivity=True)
    data = made_up(10, seed=0)
    found = gathered(data, made_up(8, seed=1), config)
    used = found.training.sequences
    assert used.num_rows() <= max_rows or len(used) == 1
    assert found.num_training_videos == 10
    assert set(found.training.actions.videos) <= set(used)
    assert len(found.evaluation.sequences) == 8
    notes = measured(found, config).notes
    assert any("evenly chosen" in note and "Localizers" in note for note in notes) == (
        len(used) < 10
    )
    assert any(note.startswith("Temporal sensitivity is measured on") for note in notes) == (
        max_rows < 600
    )


def test_without_a_training_subset_only_sensitivity_is_measured() -> None:
    found = measured(gathered(None, made_up(4, seed=1)))
    assert found.headline is None
    assert found.sensitivity is not None
    assert len(found.detections()) == 0
    assert any("training subset has no annotated action" in note for note in found.notes)
    assert json.dumps(found.as_json(QUICK), allow_nan=False)


def test_one_class_is_localized_by_the_only_class_there_is() -> None:
    data = only_label_0(made_up(6, seed=0))
    found = measured(gathered(data, only_label_0(made_up(4, seed=1)), classes=("run",)))
    probes = found.localization.localized["probes"]
    assert probes.classes_from == "only class"
    assert found.scores["probes"].average_precision["thumos14"].mean > 0.5
    assert found.localization.probes is not None
    assert found.localization.probes.action is None


def test_without_background_probes_say_that_they_cannot_localize() -> None:
    data = (
        {name: sequence(name, np.eye(8)[[label] * 12]) for name, label in (("a", 0), ("b", 1))},
        Instances(
            videos=np.array(["a", "b"], dtype=object),
            label_indices=np.array([0, 1]),
            t_start=np.zeros(2),
            t_end=np.full(2, 12 * STRIDE),
        ),
    )
    found = measured(gathered(data, made_up(2, seed=1)))
    assert set(found.localization.localized) == {"detector"}
    assert any("not of both action and background" in note for note in found.notes)


def test_a_video_of_one_row_is_no_error() -> None:
    action = Instances(
        videos=np.array(["a"], dtype=object),
        label_indices=np.array([0]),
        t_start=np.array([0.0]),
        t_end=np.array([0.5]),
    )
    single = ({"a": sequence("a", np.ones((1, 8)))}, action)
    renamed = (
        {"b": sequence("b", np.ones((1, 8)))},
        Instances(**{**vars(action), "videos": np.array(["b"], dtype=object)}),
    )
    found = measured(gathered(single, renamed))
    assert found.headline is not None
    assert json.dumps(found.as_json(QUICK), allow_nan=False)
    assert tell_stories(found, protocol="activitynet") is not None


def test_evaluated_videos_without_actions_have_no_map() -> None:
    background = [
        {**row, "kind": "background", "label": None, "label_index": -1, "region": 1}
        for row in segments_of("validation", made_up(2, seed=1)[1])
    ]
    training, evaluated = made_up(4, seed=0), made_up(2, seed=1)
    found = measured(
        gather_material(
            export_of({**training[0], **evaluated[0]}, clip_seconds=1.0),
            segments_table([*segments_of("training", training[1]), *background]),
            classes=CLASSES,
            train_subset="training",
            config=QUICK,
        )
    )
    assert found.scores == {}
    assert any("has no annotated action, so there is no mAP" in note for note in found.notes)


def test_annotated_videos_without_features_are_counted_in_a_note() -> None:
    training, evaluated = made_up(4, seed=0), made_up(3, seed=1)
    gone = sorted(evaluated[0])[0]
    rest = {name: item for name, item in evaluated[0].items() if name != gone}
    found = gathered(training, (rest, evaluated[1]))
    num_gone = int((evaluated[1].videos == gone).sum())
    assert found.notes == (
        f"1 of the 3 videos of validation have no features and are left out, with {num_gone} "
        "actions.",
    )


def test_detections_in_videos_annotated_as_empty_are_wrong() -> None:
    config = EvaluateConfig(localizers=("probes",), sensitivity=False)
    training, evaluated = made_up(6, seed=0), made_up(4, seed=1)
    names = sorted(evaluated[0])
    empty = names[:2]  # as if their actions were no actions
    annotated = evaluated[1].take(~np.isin(evaluated[1].videos.astype(str), empty))
    rows = [*segments_of("training", training[1]), *segments_of("validation", annotated)]
    found = {
        key: measured(
            gather_material(
                export_of({**training[0], **evaluated[0]}, clip_seconds=2 * STRIDE),
                segments_table(rows),
                classes=CLASSES,
                train_subset="training",
                config=config,
                subsets=subsets,
            ),
            config,
        )
        for key, subsets in (("without", None), ("with", {"validation": names}))
    }
    videos = {key: set(item.detections()["video"].to_pylist()) for key, item in found.items()}
    assert videos == {"without": set(names[2:]), "with": set(names)}
    scores = {
        key: item.scores["probes"].average_precision["thumos14"].mean for key, item in found.items()
    }
    assert scores["with"] < scores["without"] - 0.1
    json.dumps(found["with"].as_json(config), allow_nan=False)
    assert tell_stories(found["with"], protocol="thumos14") is not None


def test_an_empty_video_is_trained_on_as_background() -> None:
    training, evaluated = made_up(2, seed=0), made_up(2, seed=1)
    blank = sequence("blank", np.zeros((20, 8)))
    material = gather_material(
        export_of({**training[0], **evaluated[0], "blank": blank}, clip_seconds=2 * STRIDE),
        segments_table(
            [*segments_of("training", training[1]), *segments_of("validation", evaluated[1])]
        ),
        classes=CLASSES,
        train_subset="training",
        config=QUICK,
        subsets={"training": ["blank"]},
    )
    assert set(material.training.sequences) == {"blank", *training[0]}
    assert set(measured(material).scores) == {"probes", "detector"}


def test_an_empty_subset_is_said_so() -> None:
    config = EvaluateConfig(subset="testing")
    found = measured(gathered(made_up(4, seed=0), made_up(2, seed=1), config), config)
    assert found.sensitivity is None
    assert any("subset testing has no annotated video with features" in n for n in found.notes)


def test_no_features_are_no_evidence() -> None:
    found = no_evidence("why")
    values = found.as_json(QUICK)
    assert found.notes == ("why",)
    assert values["localizers"] == {}
    assert values["probes"] is values["sensitivity"] is None
    assert tell_stories(found, protocol="thumos14") is None


def model_of(heads: Heads, *, use_gvf: bool) -> TSPModel:
    torch.manual_seed(0)
    return TSPModel(
        build_encoder("r2plus1d_tiny"),
        encoder_name="r2plus1d_tiny",
        num_classes=3,
        heads=heads,
        use_gvf=use_gvf,
    )


@pytest.mark.parametrize("use_gvf", [False, True])
def test_heads_on_rows_are_those_of_the_model(use_gvf: bool) -> None:
    size = feature_size("r2plus1d_tiny")
    features = np.random.default_rng(0).normal(size=(5, size)).astype(np.float32)
    gvf = GvfTable(source="test", names=("a",), values=np.ones((1, size), dtype=np.float32))
    model = model_of("tsp", use_gvf=use_gvf)
    heads = heads_on_rows(model, classes_fit=True, gvf=gvf)
    assert heads.action is not None
    assert heads.region is not None
    joined = torch.from_numpy(features)
    with torch.inference_mode():
        action = model.action_head(joined)  # type: ignore[misc]
        if use_gvf:
            joined = torch.cat([joined, torch.ones(5, size)], dim=1)
        region = model.region_head(joined)  # type: ignore[misc]
    rows = sequence("a", features)
    assert np.allclose(heads.action(rows), action, atol=1e-5)
    assert np.allclose(heads.region(rows), region, atol=1e-5)
    assert heads.silent_on(["a", "b"]) == ({"b"} if use_gvf else set())


def test_heads_that_do_not_fit_are_left_out() -> None:
    nothing = heads_on_rows(None, classes_fit=False, gvf=None)
    assert nothing.action is nothing.region is None
    assert heads_on_rows(model_of("tac", use_gvf=False), classes_fit=True, gvf=None).region is None
    without = heads_on_rows(model_of("tsp", use_gvf=True), classes_fit=False, gvf=None)
    assert without.action is without.region is None


def test_a_head_that_is_lacking_is_replaced_by_the_probe() -> None:
    own = HeadsOnRows(action=lambda rows: rows.features[:, :3] * 3)
    config = EvaluateConfig(localizers=("heads",), sensitivity=False)
    found = measured(material(QUICK), config, own)
    heads = found.localization.localized["heads"]
    assert (heads.classes_from, heads.actionness_from) == ("head", "probe")
    assert found.scores["heads"].average_precision["thumos14"].mean > 0.5


def test_videos_that_the_region_head_cannot_speak_for_get_no_detections() -> None:
    names = list(material(QUICK).evaluation.sequences)
    own = HeadsOnRows(
        region=lambda rows: np.stack([rows.features.sum(axis=1), np.ones(len(rows))], axis=1),
        videos=frozenset(names[1:]),
    )
    config = EvaluateConfig(localizers=("heads",), sensitivity=False)
    found = measured(material(QUICK), config, own)
    detected = set(found.detections()["video"].to_pylist())
    assert names[0] not in detected
    assert detected
    assert any("nothing in 1 videos without a global" in note for note in found.notes)
    assert found.localization.region_from == "probe"


def test_the_region_auc_of_predictions() -> None:
    schema = predictions_schema(2).with_metadata()
    rows = [
        {"region": 0, "region_logits": [2.0, 0.0]},
        {"region": 0, "region_logits": [0.0, 0.5]},
        {"region": 1, "region_logits": [0.0, 1.0]},
        {"region": 1, "region_logits": [0.5, 0.0]},
        {"region": 1, "region_logits": None},
    ]
    table = type(schema.empty_table()).from_pylist(rows, schema=schema)
    assert region_auc_of(table) == 0.75

"""ActionFormer's own reader, training loop and evaluation, as released, on an export of ours."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

from tests.features.actionformer_reader import Reader
from tsp_core.demo import make_demo
from tsp_core.evaluation.detection.average_precision import mean_average_precision
from tsp_core.evaluation.detection.instances import Detections, Instances
from tsp_core.schemas import TIMES, read_table

pytestmark = [
    pytest.mark.downstream,
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("actionformer") is None,
        reason="actionformer is not installed; `make test-downstream` does it, and runs this",
    ),
    pytest.mark.filterwarnings("default"),  # warnings of its code are not this project's
]

CONFIG = "demo_tsp.yaml"
NO_GPU = "import torch; torch.UntypedStorage.cuda = lambda storage, *_: storage; "
"""What lets its evaluation load a checkpoint without a GPU; as in docs/features.md."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """An export of the demo dataset and a copy of its recipe, as ActionFormer sees it."""

    folder: Path
    recipe: Path


def python(*arguments: str, cwd: Path) -> str:
    """Run Python here and return what it prints; fails with that where it fails."""
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(command, cwd=cwd, text=True, capture_output=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The whole pipeline on three short videos, trained for one epoch."""
    folder = tmp_path_factory.mktemp("demo")
    config = make_demo(folder, minutes=0.3)
    changes = ["--set", "pretrain.epochs=1", "--set", "pretrain.milestones=[]"]
    tsp = "from flows.cli import main; main()"
    python("-c", tsp, "run", str(config), *changes, "--through", "export", "--quiet", cwd=folder)
    (artifact,) = (folder / "store" / "export").iterdir()
    recipe = tmp_path_factory.mktemp("actionformer") / "recipe"
    shutil.copytree(artifact / "recipes" / "actionformer", recipe)
    return Export(folder=artifact, recipe=recipe)


@pytest.fixture
def options(export: Export, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The exported configuration as ActionFormer loads it, from the recipe's folder."""
    from actionformer.core import load_config

    monkeypatch.chdir(export.recipe)
    loaded: dict[str, Any] = load_config(f"configs/{CONFIG}")
    return loaded


def dataset(options: dict[str, Any], *, training: bool, **changes: Any) -> Any:
    from actionformer.datasets import make_dataset

    split = options["train_split" if training else "val_split"]
    return make_dataset(
        options["dataset_name"], training, split, **{**options["dataset"], **changes}
    )


def model_of(options: dict[str, Any]) -> Any:
    from actionformer.modeling import make_meta_arch

    torch.manual_seed(0)
    return make_meta_arch(options["model_name"], **options["model"])


def test_its_checks_pass(options: dict[str, Any]) -> None:
    from actionformer.core import validate_config
    from actionformer.core.config_validator import ConfigurationError

    validate_config(options)
    cut = {**options, "dataset": {**options["dataset"], "max_seq_len": 97}}
    with pytest.raises(ConfigurationError):
        validate_config(cut)


@pytest.mark.parametrize("training", [True, False])
def test_it_reads_what_was_exported(
    export: Export, options: dict[str, Any], training: bool
) -> None:
    """Every field that the reader takes, against the export itself and the reader retold."""
    ours = Reader(export.recipe, CONFIG, training=training)
    theirs = dataset(options, training=training, crop_ratio=None)  # cropping is random
    assert [item["id"] for item in theirs.data_list] == list(ours.items)
    assert theirs.label_dict == ours.label_ids
    times = read_table(str(export.folder / "times.parquet"), TIMES.name).to_pylist()
    manifest = json.loads((export.folder / "manifest.json").read_text())
    for item in (theirs[index] for index in range(len(theirs))):
        video = item["video_id"]
        with h5py.File(export.folder / "features.h5") as file:
            np.testing.assert_array_equal(item["feats"].numpy().T, file[video][()])
        segments, labels = ours.truth(video)
        np.testing.assert_allclose(item["segments"].numpy(), segments, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(item["labels"].numpy(), labels)
        assert item["fps"] == manifest["clip"]["frame_rate"]
        assert item["feat_stride"] == manifest["stride"]
        assert item["feat_num_frames"] == manifest["clip"]["length"]
        assert item["duration"] == ours.items[video]["duration"]
        centers = np.array([row["t_center"] for row in times if row["video"] == video])
        points = np.arange(item["feats"].shape[1])
        seconds = (points * item["feat_stride"] + 0.5 * item["feat_num_frames"]) / item["fps"]
        assert np.abs(seconds - centers).max() < 1 / 12  # clips start at real frames


def test_it_crops_for_training_and_keeps_actions(options: dict[str, Any]) -> None:
    items = dataset(options, training=True)
    for item in (items[index] for index in range(len(items)) for _ in range(20)):
        assert item["feats"].shape[1] <= options["dataset"]["max_seq_len"]
        assert len(item["segments"]) == len(item["labels"]) > 0


def test_its_results_are_in_the_annotations_seconds(
    export: Export, options: dict[str, Any]
) -> None:
    """Annotations, read onto the grid of rows, come back as they were."""
    path = export.recipe / options["dataset"]["json_file"]
    database = json.loads(path.read_text())["database"]
    model = model_of(options)
    model.test_nms_method = "none"
    items = dataset(options, training=False)
    for item in (items[index] for index in range(len(items))):
        (result,) = model.postprocessing([{**item, "scores": torch.ones(len(item["labels"]))}])
        annotations = database[item["video_id"]]["annotations"]
        expected = [act["segment"] for act in annotations]
        np.testing.assert_allclose(result["segments"].numpy(), expected, atol=1e-4)
        assert result["labels"].tolist() == [act["label_id"] for act in annotations]


def test_its_mean_average_precision_is_ours(export: Export, options: dict[str, Any]) -> None:
    """Also with detections of labels that validation lacks."""
    from actionformer.utils import ANETdetection

    items = Reader(export.recipe, CONFIG, training=False).items
    random = np.random.default_rng(0)
    acts = [(name, act) for name, item in items.items() for act in item["annotations"]] * 50
    segments = np.array([act["segment"] for _, act in acts])
    segments += random.normal(0, 0.3, segments.shape)
    num_classes = options["dataset"]["num_classes"]
    labels = np.array([act["label_id"] for _, act in acts])
    assert len(np.unique(labels)) < num_classes
    labels = np.where(
        random.random(len(acts)) < 0.3, random.integers(num_classes, size=len(acts)), labels
    )
    found = {
        "video-id": [name for name, _ in acts],
        "t-start": segments[:, 0],
        "t-end": segments[:, 1],
        "label": labels,
        "score": random.random(len(acts)),
    }
    tiou = dataset(options, training=False).get_attributes()["tiou_thresholds"]
    evaluator = ANETdetection(
        options["dataset"]["json_file"], options["val_split"][0], tiou, num_workers=1
    )
    _, mean, _ = evaluator.evaluate(dict(found), verbose=False)
    assert 0.05 < mean < 0.95
    assert map_of(export, found) == pytest.approx(mean, abs=1e-9)


def loss(model: Any, items: Any) -> float:
    """Its training loss on all videos, dropping nothing."""
    torch.manual_seed(0)
    model.train()
    with torch.no_grad():
        return float(model([items[index] for index in range(len(items))])["final_loss"])


def test_it_trains_and_evaluates(export: Export, options: dict[str, Any]) -> None:
    """Its commands, with fewer epochs; its mAP is the one computed here from its detections."""
    path = export.recipe / "configs" / CONFIG
    short = yaml.safe_load(path.read_text())
    assert short["opt"]["epochs"] > 1000  # two videos; see the recipe
    short["opt"].update(epochs=30, warmup_epochs=5)
    (export.recipe / "configs" / "short.yaml").write_text(yaml.safe_dump(short))
    train = ["-m", "actionformer.train", "configs/short.yaml", "--output", "x"]
    output = python(*train, "-c", "0", "-p", "1000000", cwd=export.recipe)
    assert output.count("finished with lr") == 35

    items = dataset(options, training=True, crop_ratio=None)
    model = model_of(options)
    before = loss(model, items)
    (checkpoint,) = (export.recipe / "ckpt" / "short_x").glob("*.pth.tar")
    weights = torch.load(checkpoint)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): w for name, w in weights.items()})
    assert loss(model, items) < 0.7 * before

    evaluate = ["-c", NO_GPU + "from actionformer.eval import main; main()", "configs/short.yaml"]
    evaluate += ["ckpt/short_x", "-p", "1000000"]
    output = python(*evaluate, cwd=export.recipe)
    found = re.search(r"Average mAP: +(\S+) \(%\)", output)
    assert found is not None
    python(*evaluate, "--saveonly", cwd=export.recipe)
    saved = pickle.loads((checkpoint.parent / "eval_results.pkl").read_bytes())
    assert 100 * map_of(export, saved) == pytest.approx(float(found[1]), abs=0.0051)


def map_of(export: Export, saved: dict[str, Any]) -> float:
    """Average mAP of its detections, in [0, 1], by this project's code."""
    items = Reader(export.recipe, CONFIG, training=False).items
    truth = [
        (name, act["label_id"], *act["segment"])
        for name, item in items.items()
        for act in item["annotations"]
    ]
    names, labels, starts, ends = (np.array(column) for column in zip(*truth, strict=True))
    detections = Detections(
        videos=np.array(saved["video-id"]),
        label_indices=saved["label"].astype(np.int64),
        t_start=saved["t-start"].astype(np.float64),
        t_end=saved["t-end"].astype(np.float64),
        scores=saved["score"].astype(np.float64),
    )
    instances = Instances(videos=names, label_indices=labels, t_start=starts, t_end=ends)
    return mean_average_precision(instances, detections).mean

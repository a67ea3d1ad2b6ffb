"""Pretrain: the encoder with its heads, trained on the clips (paper, sections 3 and 4.1).

Publishes `best.pth` (the best epoch, in the released layout), `metrics.parquet` (`METRICS`),
`metrics.csv`, `training.json` and `curves.png`. While it trains, checkpoints for resuming are in
`ROOT/training/FINGERPRINT/`; a run that was killed continues from there.

When to train anew (`pretrain.retrain`):

- `on_change`: when data or configuration differ from those of every published run.
- `never`: only when no run of this configuration, on any data with these classes, is published;
  else the newest is kept. `ROOT/training/history/` remembers the order of the runs.
- `always`: each time. Run n+1 of the same data and configuration is an artifact of its own, whose
  recipe says so; an interrupted one is continued, not counted.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsp_core import artifacts, storage
from tsp_core.artifacts import ArtifactRef, Recipe, fingerprint_of
from tsp_core.config import Config, PretrainConfig, recipe_fields
from tsp_core.errors import ConfigError
from tsp_core.features.gvf import GvfTable, read_gvf
from tsp_core.model.encoders import feature_size
from tsp_core.model.identity import weights_identity
from tsp_core.schemas import read_table
from tsp_core.stages import proxies, shards
from tsp_core.stages.base import (
    Inputs,
    Plan,
    Progress,
    ProgressCallback,
    Shard,
    ShardReport,
    StageReport,
    no_progress,
    reused,
)
from tsp_core.training import history, nodes
from tsp_core.training.checks import check_clips, check_device, check_settings
from tsp_core.training.cores import share_of_cores
from tsp_core.training.index import write_index
from tsp_core.training.job import CurvePoint, TrainingJob, TrainingUpdate
from tsp_core.training.launch import launch
from tsp_core.training.report import checkpoint_digest, result_files, summarise
from tsp_core.video.sandbox import DecodingLimits

VERSION = 3

_logger = logging.getLogger(__name__)


def plan(config: Config, inputs: Inputs) -> Plan:
    """Look for a published run that the retrain policy accepts.

    Raises:
        ConfigError: The settings cannot train anything.
        WeightsError: The encoder's initial weights do not exist.
    """
    check_settings(config.pretrain)
    recipe = _recipe(config, inputs)
    if config.pretrain.retrain == "never":
        kept = history.newest(config.root_uri, config.name, recipe, _classes(inputs))
        if kept is not None:
            return _kept(kept, recipe)
    newest = None
    recipe = history.last_published(config.root_uri, config.name, recipe, _classes(inputs))
    while (found := artifacts.find(config.root_uri, recipe)) is not None:
        newest = Plan(recipe=recipe, existing=found)
        recipe = history.run_of(recipe, recipe.config.get("run", 0) + 1)
    if newest is None or config.pretrain.retrain == "always":
        return Plan(recipe=recipe, notes=_notes(config, recipe))
    return newest


def _kept(kept: ArtifactRef, wanted: Recipe) -> Plan:
    """The plan of a run that is kept whatever became of the data."""
    recipe = artifacts.read_marker(kept.uri).recipe
    both = wanted.inputs.keys() | recipe.inputs.keys()
    changed = sorted(name for name in both if wanted.inputs.get(name) != recipe.inputs.get(name))
    note = f"kept by retrain 'never' although {', '.join(changed)} changed"
    return Plan(recipe=recipe, existing=kept, notes=(note,) if changed else ())


def _notes(config: Config, recipe: Recipe) -> tuple[str, ...]:
    notes = []
    if config.pretrain.retrain == "always":
        notes.append("retrain 'always': every run trains anew")
    if storage.exists(storage.join(_work_uri(config.root_uri, recipe), "state.pt")):
        notes.append("an interrupted run is continued from its last checkpoint")
    return tuple(notes)


def run_shard(config: Config, inputs: Inputs, shard: Shard) -> ShardReport:  # noqa: ARG001
    """There are no shards: training is one piece of work."""
    raise AssertionError("the stage 'pretrain' has no shards")


def finish(
    config: Config, inputs: Inputs, plan: Plan, *, progress: ProgressCallback = no_progress
) -> StageReport:
    """Train, or continue a run that was interrupted, and publish the best epoch.

    Raises:
        ConfigError: A subset is unknown or lacks clips; the device cannot do what is asked.
        GvfError: Global video features are of the wrong size, or a video has none.
        TrainingError: A loss is not finite, or too many videos cannot be read.
        WorkerLostError: A training process was killed; a retry continues the run.
    """
    finished = artifacts.find(config.root_uri, plan.recipe)
    if finished is not None:  # by an earlier attempt, or by another run at the same time
        return reused(plan.model_copy(update={"existing": finished}))
    device = _device(config)
    with tempfile.TemporaryDirectory(prefix="tsp-pretrain-") as folder:
        _write_data(Path(folder), config, inputs)
        history.remember(config.root_uri, config.name, plan.recipe, _classes(inputs))
        job = _job(config, inputs, plan.recipe, folder=folder, device=device)
        result = launch(job, _reporter(config, progress))
        for bad in result.quarantined:
            _logger.warning("pretrain: %r was left out: %s", bad.video, bad.reason)
        summary = summarise(result)
        artifact = artifacts.publish(
            config.root_uri,
            plan.recipe,
            result_files(Path(folder), result),
            summary=summary,
            digest=checkpoint_digest(Path(folder)),
        )
    for uri in (job.state_uri, job.suspects_uri):
        storage.delete(uri)  # the artifact is there now
    return StageReport(stage="pretrain", artifact=artifact, summary=summary)


def _recipe(config: Config, inputs: Inputs) -> Recipe:
    """The recipe of the first run with these settings and data."""
    encoder = config.encoder
    return Recipe(
        stage="pretrain",
        version=VERSION,
        config={
            "pretrain": _recipe_fields(config.pretrain),
            "clip": recipe_fields(config.clip),
            "encoder": encoder.name,
            "weights": weights_identity(
                encoder.weights,
                encoder.name,
                sha256_prefix=encoder.sha256_prefix,
                mirror=encoder.mirror,
            ),
            "gvf_pooling": _pooling(config),
            "gvf_stride": config.gvf.stride if _pooling(config) != "none" else None,
        },
        inputs=_data_digests(config, inputs),
    )


def _recipe_fields(pretrain: PretrainConfig) -> dict[str, Any]:
    """Two machines with four processes each train what one with eight does."""
    return {**recipe_fields(pretrain), "processes": pretrain.nodes * pretrain.processes}


def _data_digests(config: Config, inputs: Inputs) -> dict[str, str]:
    """What training reads: clips, content of their videos, proxies of them, classes, GVFs.

    Not the inputs as a whole, so that a new video of another subset, or one that nobody has
    annotated, does not train anew.
    """
    clips = read_table(inputs["index"].file("clips.parquet"), "clips")
    clips = _of_subsets(clips, config).filter(pc.field("status") == "ok")
    videos = read_table(
        inputs["ingest"].file("videos.parquet"), "videos", columns=["video", "content_hash"]
    )
    videos = videos.filter(pc.is_in(videos["video"], value_set=pc.unique(clips["video"])))
    digests = {
        "clips": fingerprint_of(clips.to_pydict()),
        "videos": fingerprint_of(sorted(zip(*videos.to_pydict().values(), strict=True))),
        "classes": fingerprint_of(_classes(inputs)),
    }
    if "gvf" in inputs:
        digests["gvf"] = _gvf_digest(
            inputs["gvf"], [str(name) for name in videos["video"].to_pylist()]
        )
    return digests | proxies.digest_of(config, inputs["ingest"], videos)


def _gvf_digest(gvf: ArtifactRef, videos: list[str]) -> str:
    """Digest of the global video features of some videos.

    How they are computed, and the content of the videos, determine them; only which videos have
    none is looked up, so that planning reads no features.
    """
    recipe = artifacts.read_marker(gvf.uri).recipe
    table = read_table(
        gvf.file("gvf.parquet"),
        "gvf",
        columns=["video"],
        filters=[("status", "=", "ok")],
        in_parts=True,
    )
    without = set(videos) - set(table["video"].to_pylist())
    return fingerprint_of([recipe.version, shards.settings_of(recipe), sorted(without)])


def _of_subsets(clips: pa.Table, config: Config) -> pa.Table:
    """The clips of the two subsets that training uses."""
    subsets = pa.array([config.pretrain.train_subset, config.pretrain.valid_subset])
    return clips.filter(pc.is_in(clips["subset"], value_set=subsets))


def _pooling(config: Config) -> Literal["max", "avg", "none"]:
    return "none" if config.pretrain.heads == "tac" else config.gvf.pooling


def _work_uri(root: str, recipe: Recipe) -> str:
    """Folder of what an unfinished run needs to continue, and of its TensorBoard events."""
    return storage.join(root, "training", recipe.fingerprint)


def _classes(inputs: Inputs) -> tuple[str, ...]:
    return tuple(json.loads(artifacts.read_file(inputs["annotate"], "classes.json")))


def _device(config: Config) -> Literal["cpu", "cuda"]:
    """Choose the device and make sure that it can do what is configured."""
    import torch

    device: Literal["cpu", "cuda"] = "cpu"
    if config.runtime.device != "cpu" and torch.cuda.is_available():
        device = "cuda"
    if config.runtime.device == "cuda" and device != "cuda":
        raise ConfigError("runtime.device: 'cuda': torch sees no CUDA device; use 'auto' or 'cpu'")
    check_device(config.pretrain, device, torch.cuda.device_count())
    return device


def _write_data(folder: Path, config: Config, inputs: Inputs) -> None:
    """Check the data of training and validation, and lay it out for the training processes."""
    pretrain = config.pretrain
    clips = read_table(inputs["index"].file("clips.parquet"), "clips")
    gvf = None
    if _pooling(config) != "none":
        gvf = read_gvf(inputs["gvf"].file("gvf.parquet"))
        clips = _without_failed(clips, gvf)
    check_clips(clips, pretrain, _classes(inputs))
    clips = _of_subsets(clips, config)
    videos = read_table(inputs["ingest"].file("videos.parquet"), "videos")
    features = None if gvf is None else _gvf_by_video(gvf, clips, config.encoder.name)
    uris = proxies.uris(config, inputs["ingest"])
    write_index(folder, videos=videos, clips=clips, gvf=features, proxies=uris)


def _without_failed(clips: pa.Table, gvf: GvfTable) -> pa.Table:
    """Leave out the clips of videos that the gvf stage put in quarantine: the run goes on."""
    if not gvf.failed:
        return clips
    kept = clips.filter(pc.invert(pc.is_in(clips["video"], value_set=pa.array(list(gvf.failed)))))
    _logger.warning(
        "pretrain: %d segments left out, their videos have no global video feature: %s",
        len(clips) - len(kept),
        ", ".join(sorted(gvf.failed)[:5]),
    )
    return kept


def _gvf_by_video(table: GvfTable, clips: pa.Table, encoder: str) -> dict[str, NDArray[np.float32]]:
    """Global video feature of every video that has a clip."""
    usable = clips.filter(pc.field("status") == "ok")
    names = [str(name) for name in pc.unique(usable["video"]).to_pylist()]
    table.check(names, feature_size=feature_size(encoder), encoder=encoder)
    return {name: table.lookup(name) for name in names}


def _job(
    config: Config, inputs: Inputs, recipe: Recipe, *, folder: str, device: Literal["cpu", "cuda"]
) -> TrainingJob:
    num_threads, num_workers = share_of_cores(config.pretrain, device)
    return TrainingJob(
        folder=folder,
        work_uri=_work_uri(config.root_uri, recipe),
        clip=config.clip,
        encoder=config.encoder,
        pretrain=config.pretrain,
        classes=_classes(inputs),
        pooling=_pooling(config),
        gvf_stride=config.gvf.stride,
        weights_identity=recipe.config["weights"],
        device=device,
        meeting_uri=nodes.meeting_uri(config.root_uri, config.name),
        cache_dir=config.runtime.cache_dir,
        num_threads=num_threads,
        num_workers=num_workers,
        limits=DecodingLimits.of(config.runtime),
        max_bad_fraction=config.ingest.max_bad_fraction,
    )


def _reporter(config: Config, progress: ProgressCallback) -> Callable[[TrainingUpdate], None]:
    """Turn the training's updates into the stage's progress."""

    def report(update: TrainingUpdate) -> None:
        """Pass on one update."""
        figures = "  ".join(f"{name} {value:.4f}" for name, value in _shown(update.metrics))
        epoch = f"epoch {update.epoch + 1}/{config.pretrain.epochs}"
        clips = update.iteration * config.pretrain.clips_per_step
        progress(
            Progress(
                stage="pretrain",
                done=update.iteration,
                total=update.num_iterations,
                unit="iterations",
                message=f"{epoch}  {update.phase}  {figures}".rstrip(),
                counts={"clips": clips},
                points=_points(update, config.pretrain.epochs),
            )
        )

    return report


def _points(update: TrainingUpdate, num_epochs: int) -> tuple[CurvePoint, ...]:
    """An update as points of the training curves."""
    if update.is_epoch_end:
        phase, epochs = update.phase, float(update.epoch + 1)
    else:
        phase, epochs = "step", update.iteration * num_epochs / max(update.num_iterations, 1)
    return tuple(CurvePoint(epochs, phase, *figure) for figure in _shown(update.metrics))


def _shown(metrics: dict[str, float]) -> Iterator[tuple[str, float]]:
    return (item for item in metrics.items() if item[0].startswith(("loss", "accuracy")))

"""Export: features of every video, in the formats that localization code reads.

Per-video features are kept in shards; `finish` assembles the formats, downstream recipes, the exact
times of all rows and `manifest.json` from them, one video after the other, and publishes them.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tsp_core import artifacts, schemas, storage
from tsp_core.annotations.subsets import videos_by_subset
from tsp_core.artifacts import Recipe
from tsp_core.config import Config, EncoderConfig, recipe_fields
from tsp_core.errors import AnnotationError, WeightsError
from tsp_core.features.manifest import FeatureSource, Quarantined
from tsp_core.features.recipes.base import Action, RecipeContext
from tsp_core.features.rows import (
    VideoFacts,
    facts_from_row,
    features_from_table,
    table_from_features,
)
from tsp_core.model.encoders import feature_size
from tsp_core.model.identity import weights_identity, weights_source
from tsp_core.schemas import features_schema, read_table
from tsp_core.stages import shards
from tsp_core.stages.base import (
    Inputs,
    Plan,
    Progress,
    ProgressCallback,
    Shard,
    ShardReport,
    StageReport,
    no_progress,
)
from tsp_core.stages.shard_files import Located, read_located
from tsp_core.stages.shards import Computed, Video

VERSION = 4
"""Raised whenever the files that are assembled change for the same features."""
FEATURES_VERSION = 2
"""Raised whenever the features of a video change; while it stays, none are computed anew."""
CHECKPOINT = "best.pth"


def plan(config: Config, inputs: Inputs) -> Plan:
    """Find the videos whose features are not there yet.

    Raises:
        AnnotationError: A subset asked for has no ingested video.
        WeightsError: There is no such checkpoint.
    """
    return shards.plan_videos(
        config,
        _recipe(config, inputs),
        _work(config, inputs),
        _videos(config, inputs),
        shard_size=config.export.shard_size,
    )


def run_shard(config: Config, inputs: Inputs, shard: Shard) -> ShardReport:
    """Compute the features of a batch of videos; one that cannot be decoded is quarantined.

    Raises:
        ConfigError: `export.checkpoint` was trained with other clips.
    """
    from tsp_core.features.extraction import shared_extractor
    from tsp_core.model.trained_clip import check_exported_clip

    shards.check_work(config, _work(config, inputs), [shard])
    encoder, identity = _encoder(config, inputs)
    if config.export.checkpoint is not None:
        check_exported_clip(config.clip, encoder, identity, config.runtime.cache_dir)
    extractor = shared_extractor(
        encoder,
        identity=identity,
        runtime=config.runtime,
        precision=config.export.precision,
        batch_size=config.export.batch_size,
    )

    def compute(row: Mapping[str, Any]) -> Computed:
        rows = extractor.extract_row(
            row, config.clip, config.export.stride, cache_dir=config.runtime.cache_dir
        )
        return Computed(table=table_from_features(rows), num_clips=len(rows.features))

    schema = features_schema(extractor.feature_size)
    return shards.run_videos(config, inputs, shard, schema, compute)


def finish(
    config: Config, inputs: Inputs, plan: Plan, *, progress: ProgressCallback = no_progress
) -> StageReport:
    """Assemble the formats, recipes and manifest, and publish them.

    Raises:
        TooManyBadVideosError: Too many videos failed.
    """
    videos = _videos(config, inputs)
    shards.check_work(config, _work(config, inputs), plan.shards)
    located = shards.locate_videos(config, plan, videos)
    with tempfile.TemporaryDirectory(prefix="tsp-export-") as folder:
        files, summary = _assemble(config, inputs, located, Path(folder), progress)
        artifact = artifacts.publish(
            config.root_uri,
            plan.recipe,
            files,
            summary=summary,
            shards=artifacts.shard_folder("export", _work(config, inputs).fingerprint),
        )
    return StageReport(stage="export", artifact=artifact, summary=summary)


def _recipe(config: Config, inputs: Inputs) -> Recipe:
    fields = recipe_fields(config.export)
    del fields["checkpoint"]  # its identity counts, not where it lies
    sources = ["ingest"]
    if config.export.subsets is not None or config.export.recipes:
        sources.append("annotate")
    if config.export.recipes:
        fields["name"] = config.name
        fields["train_subset"] = config.pretrain.train_subset
        fields["valid_subset"] = config.pretrain.valid_subset
        fields["protocol"] = config.evaluate.protocol
    return Recipe(
        stage="export",
        version=VERSION,
        config={**fields, **_work(config, inputs).config},
        inputs={name: inputs[name].digest for name in sources},
    )


def _work(config: Config, inputs: Inputs) -> Recipe:
    """What determines the features of one video, apart from the video."""
    return Recipe(
        stage="export",
        version=FEATURES_VERSION,
        config={
            "clip": recipe_fields(config.clip),
            "stride": config.export.stride,
            "precision": config.export.precision,
            "encoder": config.encoder.name,
            "checkpoint": _encoder(config, inputs)[1],
        },
        inputs={},
    )


def check_checkpoint(config: Config) -> None:
    """Look at `export.checkpoint` before anything is computed; a remote file is not fetched for it.

    Raises:
        WeightsError: There is no such file, it holds no weights, or those of another encoder.
        ConfigError: It was trained with other clips.
    """
    from tsp_core.model.checkpoint import check_weights_file
    from tsp_core.model.trained_clip import check_exported_clip

    try:
        encoder, identity = _encoder(config, {})
        source = weights_source(encoder.weights, encoder.name, mirror=encoder.mirror)
        check_weights_file(source, encoder.name)
    except WeightsError as error:
        raise WeightsError(f"export.checkpoint: {error}") from error
    if source.uri is not None and storage.is_local(source.uri):
        check_exported_clip(config.clip, encoder, identity, config.runtime.cache_dir)


def _encoder(config: Config, inputs: Inputs) -> tuple[EncoderConfig, str]:
    """The encoder to export with, and the identity of its weights."""
    name = config.encoder.name
    if config.export.checkpoint is not None:
        encoder = EncoderConfig(
            name=name, weights=config.export.checkpoint, mirror=config.encoder.mirror
        )
        return encoder, weights_identity(encoder.weights, name, mirror=encoder.mirror)
    pretrain = inputs["pretrain"]
    sha256 = artifacts.read_marker(pretrain.uri).files[CHECKPOINT].sha256
    weights = pretrain.file(CHECKPOINT)
    return EncoderConfig(name=name, weights=weights, sha256_prefix=sha256), f"sha256:{sha256}"


def _videos(config: Config, inputs: Inputs) -> list[Video]:
    """The usable videos of the exported subsets, by name."""
    videos = shards.ingested_videos(inputs)
    if config.export.subsets is None:
        return videos
    subsets = _subsets(inputs)
    chosen = [video for video in videos if subsets.get(video.name) in config.export.subsets]
    found = {subsets[video.name] for video in chosen}
    missing = [subset for subset in config.export.subsets if subset not in found]
    if missing:
        raise AnnotationError(
            f"export.subsets: no ingested video is annotated as {missing[0]!r}; "
            f"the subsets are {', '.join(sorted(set(subsets.values())))}"
        )
    return chosen


def _subsets(inputs: Inputs) -> dict[str, str]:
    """Subset by video, also of videos that are annotated as having no segments."""
    annotate = inputs["annotate"]
    uri = annotate.file("segments.parquet")
    table = read_table(uri, schemas.SEGMENTS.name, columns=["video", "subset"])
    rows = table.group_by(["video", "subset"]).aggregate([]).to_pylist()
    found = {row["video"]: row["subset"] for row in rows}
    for subset, videos in videos_by_subset(annotate).items():
        found |= dict.fromkeys(videos, subset)
    return dict(sorted(found.items()))


def _assemble(
    config: Config,
    inputs: Inputs,
    located: Sequence[Located],
    folder: Path,
    progress: ProgressCallback,
) -> tuple[dict[str, Path], dict[str, Any]]:
    from tsp_core.features.folder import FeatureFolder, folder_of_format

    source = FeatureSource(
        encoder=config.encoder.name,
        feature_size=feature_size(config.encoder.name),
        checkpoint=_encoder(config, inputs)[1],
        clip=config.clip,
        stride=config.export.stride,
        precision=config.export.precision,
    )
    recipes = tuple(dict.fromkeys(config.export.recipes))
    output = FeatureFolder(
        folder,
        source,
        {name: folder_of_format(name) for name in config.export.formats},
        recipes=recipes,
        context=_context(config, inputs, source) if recipes else None,
    )
    facts = _facts(inputs)
    ok = [item for item in located if item.entry.code is None]
    for done, table in enumerate(read_located(ok), start=1):
        rows = features_from_table(table)
        output.write(rows, facts[rows.video])
        progress(Progress(stage="export", done=done, total=len(ok), unit="videos"))
    quarantined = _quarantined(config, inputs, located)
    summary = {
        "videos": len(ok),
        "quarantined": len(quarantined),
        "clips": output.num_rows,
        "formats": list(config.export.formats),
        "recipes": list(recipes),
        **source.model_dump(mode="json", exclude={"clip"}),
        **shards.unsettled(located),
    }
    return output.close(quarantined), summary


def _facts(inputs: Inputs) -> dict[str, VideoFacts]:
    columns = ["num_frames", "duration_seconds", "frame_rate_num", "frame_rate_den"]
    table = read_table(
        inputs["ingest"].file("videos.parquet"),
        schemas.VIDEOS.name,
        columns=["video", *columns, "is_variable_rate"],
        filters=[("status", "=", "ok")],
    )
    return {row["video"]: facts_from_row(row) for row in table.to_pylist()}


def _quarantined(
    config: Config, inputs: Inputs, located: Sequence[Located]
) -> dict[str, Quarantined]:
    """Videos without features: those refused at ingest and those that failed here."""
    table = read_table(
        inputs["ingest"].file("videos.parquet"),
        schemas.VIDEOS.name,
        columns=["video", "code", "reason"],
        filters=[("status", "!=", "ok")],
    )
    found = {row["video"]: (row["code"], row["reason"]) for row in table.to_pylist()}
    if config.export.subsets is not None:
        subsets = _subsets(inputs)
        found = {
            name: why for name, why in found.items() if subsets.get(name) in config.export.subsets
        }
    found |= {
        item.entry.video: (item.entry.code, item.entry.reason)
        for item in located
        if item.entry.code is not None
    }
    return {
        name: Quarantined(code=code or "", reason=reason or "")
        for name, (code, reason) in sorted(found.items())
    }


def _context(config: Config, inputs: Inputs, source: FeatureSource) -> RecipeContext:
    """Gather what the recipes need from the annotations."""
    table = read_table(inputs["annotate"].file("segments.parquet"), schemas.SEGMENTS.name)
    actions: defaultdict[str, list[Action]] = defaultdict(list)
    classes: dict[int, str] = {}
    for row in table.to_pylist():
        if row["kind"] == "action":
            classes[row["label_index"]] = row["label"]
            actions[row["video"]].append(
                Action(
                    label=row["label"],
                    label_index=row["label_index"],
                    t_start=row["t_start"],
                    t_end=row["t_end"],
                )
            )
    return RecipeContext(
        dataset=config.name,
        feature_size=source.feature_size,
        clip=config.clip,
        stride=config.export.stride,
        classes=tuple(label for _, label in sorted(classes.items())),
        subsets=_subsets(inputs),
        actions={video: tuple(found) for video, found in actions.items()},
        train_subset=config.pretrain.train_subset,
        valid_subset=config.pretrain.valid_subset,
        rescale_rows=config.export.rescale_rows,
        protocol=config.evaluate.protocol,
    )

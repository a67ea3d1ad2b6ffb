"""Gvf: the global video feature of every video that has training or validation clips.

Computed with the encoder as it is before TSP training (paper, section 3.3), or taken from a file.
Publishes `gvf.parquet` and `gvf.h5` (the released layout).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tsp_core import artifacts, schemas, storage
from tsp_core.artifacts import Recipe
from tsp_core.config import Config, recipe_fields
from tsp_core.errors import GvfError
from tsp_core.features.gvf import gvf_from_table, h5_bytes, pool, read_gvf, table_from_gvf
from tsp_core.model.encoders import feature_size
from tsp_core.model.identity import weights_identity
from tsp_core.schemas import gvf_schema, read_table
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
    planned,
)
from tsp_core.stages.shard_files import Located, read_located
from tsp_core.stages.shards import Computed, Video
from tsp_core.storage.sealed import table_bytes

VERSION = 2


def plan(config: Config, inputs: Inputs) -> Plan:
    """Find the videos whose GVF is not there yet; an imported file has no shards.

    Raises:
        GvfError: No video has a usable clip.
        WeightsError: There are no such weights.
    """
    recipe = _recipe(config, inputs)
    if config.gvf.file is not None:
        return planned(config, recipe)
    return shards.plan_videos(
        config, recipe, _work(config), _videos(inputs), shard_size=config.gvf.shard_size
    )


def run_shard(config: Config, inputs: Inputs, shard: Shard) -> ShardReport:
    """Compute the GVFs of a batch of videos; a video that cannot be decoded is quarantined."""
    from tsp_core.features.extraction import shared_extractor

    shards.check_work(config, _work(config), [shard])
    extractor = shared_extractor(
        config.encoder,
        identity=_identity(config),
        runtime=config.runtime,
        precision=config.gvf.precision,
        batch_size=config.gvf.batch_size,
    )
    schema = gvf_schema(extractor.feature_size)
    pooling: Literal["max", "avg"] = "max" if config.gvf.pooling == "max" else "avg"

    def compute(row: Mapping[str, Any]) -> Computed:
        rows = extractor.extract_row(
            row, config.clip, config.gvf.stride, cache_dir=config.runtime.cache_dir
        )
        result = {
            "video": rows.video,
            "content_hash": rows.content_hash,
            "status": "ok",
            "num_clips": len(rows.features),
            "gvf": pool(rows.features, pooling),
        }
        table = schemas.table_from_rows([result], schema)
        return Computed(table=table, num_clips=len(rows.features))

    return shards.run_videos(config, inputs, shard, schema, compute)


def finish(
    config: Config, inputs: Inputs, plan: Plan, *, progress: ProgressCallback = no_progress
) -> StageReport:
    """Merge the shards, or import the file, check that nothing is missing, and publish.

    Raises:
        GvfError: The imported file's size is not the encoder's, or a video is missing in it.
        TooManyBadVideosError: Too many videos failed.
    """
    videos = _videos(inputs)
    located: list[Located] = []
    if config.gvf.file is not None:
        table = _imported(config, videos)
    else:
        shards.check_work(config, _work(config), plan.shards)
        located = shards.locate_videos(config, plan, videos)
        table = _merged(located, progress)
    gvf = gvf_from_table(table, source="gvf")
    summary = {
        "videos": len(gvf.names),
        "quarantined": len(gvf.failed),
        "feature_size": gvf.feature_size,
        "clips": int(np.sum(table["num_clips"].drop_null().to_numpy())),
        "imported": config.gvf.file is not None,
        "encoder": config.encoder.name,
        **shards.unsettled(located),
    }
    artifact = artifacts.publish(
        config.root_uri,
        plan.recipe,
        {"gvf.parquet": _parquet_bytes(table), "gvf.h5": h5_bytes(gvf)},
        summary=summary,
        shards=None
        if config.gvf.file
        else artifacts.shard_folder("gvf", _work(config).fingerprint),
    )
    return StageReport(stage="gvf", artifact=artifact, summary=summary)


def _recipe(config: Config, inputs: Inputs) -> Recipe:
    if config.gvf.file is not None:
        content = hashlib.sha256(storage.read_bytes(config.gvf.file)).hexdigest()
        fields: dict[str, Any] = {"file": content, "encoder": config.encoder.name}
    else:
        fields = _work(config).config
    return Recipe(
        stage="gvf",
        version=VERSION,
        config=fields,
        inputs={name: inputs[name].digest for name in ("ingest", "index")},
    )


def _work(config: Config) -> Recipe:
    """What determines the GVF of one video, apart from the video."""
    fields = recipe_fields(config.gvf)
    del fields["file"]
    return Recipe(
        stage="gvf",
        version=VERSION,
        config={
            "clip": recipe_fields(config.clip),
            "gvf": fields,
            "encoder": config.encoder.name,
            "weights": _identity(config),
        },
        inputs={},
    )


def _identity(config: Config) -> str:
    encoder = config.encoder
    return weights_identity(
        encoder.weights,
        encoder.name,
        sha256_prefix=encoder.sha256_prefix,
        mirror=encoder.mirror,
    )


def _videos(inputs: Inputs) -> list[Video]:
    """The usable videos that have a clip to train or validate on."""
    clips = read_table(
        inputs["index"].file("clips.parquet"),
        schemas.CLIPS.name,
        columns=["video"],
        filters=[("status", "=", "ok")],
    )
    with_clips = set(clips["video"].unique().to_pylist())
    videos = [video for video in shards.ingested_videos(inputs) if video.name in with_clips]
    if not videos:
        raise GvfError(
            "gvf: no video has a segment that holds a clip; check the annotations and the table "
            "of problems, or shorten clip.length"
        )
    return videos


def _merged(located: Sequence[Located], progress: ProgressCallback) -> pa.Table:
    tables = []
    for done, table in enumerate(read_located(located), start=1):
        tables.append(table)
        progress(Progress(stage="gvf", done=done, total=len(located), unit="videos"))
    return pa.concat_tables(tables).combine_chunks()


def _imported(config: Config, videos: Sequence[Video]) -> pa.Table:
    assert config.gvf.file is not None
    gvf = read_gvf(config.gvf.file)
    names = [video.name for video in videos]
    gvf.check(names, feature_size=feature_size(config.encoder.name), encoder=config.encoder.name)
    return table_from_gvf(gvf, names)


def _parquet_bytes(table: pa.Table) -> bytes:
    size = table.schema.field("gvf").type.list_size
    return table_bytes(table.cast(gvf_schema(size).with_metadata()))

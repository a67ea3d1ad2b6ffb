"""Per-video results in immutable shard files, as the gvf and export stages keep them.

A shard is a Parquet object with one row group per video and an index of its videos in the file's
metadata. Shards lie in a folder named by all that determines the result of one video, apart from
the video, so that a rerun finds every video that any earlier run has done, and with k new videos
computes those k. A video is the pair of its name and its content's hash.

Failures that are not of the content are tried again by later runs: those of a file that was away or
another one at once, those that the decoder's limits decided when the limits change. An artifact
that was published with such failures says so, and makes room for one with another recipe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tsp_core import artifacts, schemas, storage
from tsp_core.artifacts import ArtifactRef, Recipe
from tsp_core.config import Config
from tsp_core.errors import ArtifactError, TooManyBadVideosError, VideoError
from tsp_core.schemas import BOUND_TO_LIMITS, TableSchema
from tsp_core.stages.base import Inputs, Plan, Shard, ShardReport, planned
from tsp_core.stages.shard_files import Entry, Located, ShardFile, read_index
from tsp_core.stages.verdicts import limits_key
from tsp_core.video.files import NOT_OF_THE_CONTENT, blamed_on_content

_FILE = "file"
_UNSETTLED = "unsettled"
_ATTEMPT = ("tried_again", "decoder_limits")
_AGAIN = "videos that failed for another reason than their content are tried again"
_MOST_TRIES = 4
"""Artifacts that are made under the same limits while a file stays away although it is listed."""
_SCHEMAS = {"gvf": "gvf", "export": "features"}  # the table that a stage's shards hold
_READERS = 16  # shards whose index is read at a time; object stores answer slowly, but many at once


@dataclass(frozen=True, order=True, kw_only=True)
class Video:
    """A video as shards know it: its name and the SHA-256 of its file."""

    name: str
    content_hash: str


@dataclass(frozen=True, kw_only=True)
class Computed:
    """The result of one video: its rows in the stage's table, and the clips behind them."""

    table: pa.Table
    num_clips: int


Compute = Callable[[Mapping[str, Any]], Computed]
"""Turns a row of the videos table into the result of that video."""


def ingested_videos(inputs: Inputs) -> list[Video]:
    """List the usable videos, by name."""
    table = schemas.read_table(
        inputs["ingest"].file("videos.parquet"),
        schemas.VIDEOS.name,
        columns=["video", "content_hash"],
        filters=[("status", "=", "ok")],
    )
    rows = table.to_pylist()
    return sorted(Video(name=row["video"], content_hash=row["content_hash"]) for row in rows)


def plan_videos(
    config: Config, recipe: Recipe, work: Recipe, videos: Sequence[Video], *, shard_size: int
) -> Plan:
    """Plan the videos that no shard holds yet.

    Args:
        config: The configuration.
        recipe: Of the stage's artifact.
        work: Of the result of one video, without the video.
        videos: The videos that the artifact needs, by name.
        shard_size: Videos per shard.
    """
    plan = planned(config, recipe, num_items=len(videos), num_items_done=len(videos))
    usable = None
    for number in range(1, _MOST_TRIES):
        if plan.existing is None or not _is_unsettled(plan.existing, config):
            break
        usable, again = plan.existing, _tried_again(config, recipe, number)
        plan = planned(
            config, again, num_items=len(videos), num_items_done=len(videos), notes=(_AGAIN,)
        )
    if plan.existing is not None:
        return plan
    root = config.root_uri
    done = {
        video: item
        for video, item in _located(work.stage, _shards(root, work)).items()
        if _held_until(item.entry) in (None, limits_key(config))
    }
    pending = [video for video in videos if video not in done]
    groups = [pending[i : i + shard_size] for i in range(0, len(pending), shard_size)]
    shards = tuple(
        Shard(
            index=index,
            uri=artifacts.shard_uri(root, work.stage, work.fingerprint, _group_key(group)),
            videos=tuple(video.name for video in group),
        )
        for index, group in enumerate(groups)
    )
    uris = sorted({done[video].uri for video in videos if video in done})
    return plan.model_copy(
        update={
            "usable": usable,
            "shards": shards,
            "done": tuple(uris),
            "num_items_done": len(videos) - len(pending),
        }
    )


def run_videos(
    config: Config,
    inputs: Inputs,
    shard: Shard,
    schema: TableSchema,
    compute: Compute,
) -> ShardReport:
    """Compute the videos of a shard and store them; a video that fails becomes a row saying so.

    Args:
        config: The configuration.
        inputs: The artifact of ingest is among them.
        shard: What to do.
        schema: Of the stage's table.
        compute: Raises VideoError for a video that cannot be used; other errors end the shard.
    """
    started = time.monotonic()
    entries = []
    with ShardFile(shard.uri, schema) as file:
        for row in _video_rows(inputs, shard):
            entry, table = _computed_or_failed(config, row, schema, compute)
            file.add(entry, table)
            entries.append(entry)
    num_quarantined = sum(entry.code is not None for entry in entries)
    return ShardReport(
        index=shard.index,
        uri=shard.uri,
        num_ok=len(entries) - num_quarantined,
        num_quarantined=num_quarantined,
        num_clips=sum(entry.num_clips for entry in entries),
        seconds=time.monotonic() - started,
    )


def locate_videos(config: Config, plan: Plan, videos: Sequence[Video]) -> list[Located]:
    """Find the result of each video, in their order, in the shards of a plan that has been run.

    The store is not asked for a listing, which may lag behind what has just been written.

    Raises:
        ArtifactError: Some are not there: a shard has not been run.
        TooManyBadVideosError: More than `ingest.max_bad_fraction` of them failed.
    """
    stage = plan.recipe.stage
    found = _located(stage, [*plan.done, *(shard.uri for shard in plan.shards)])
    missing = [video.name for video in videos if video not in found]
    if missing:
        raise ArtifactError(
            f"{stage}: {len(missing)} of {len(videos)} videos have not been computed "
            f"({missing[0]!r}, ...); run the stage's shards before it is finished"
        )
    located = [found[video] for video in videos]
    failed = [item.entry for item in located if item.entry.code is not None]
    if len(failed) > config.ingest.max_bad_fraction * len(videos):
        reasons = "; ".join(f"{bad.video!r}: {bad.code}: {bad.reason}" for bad in failed[:3])
        raise TooManyBadVideosError(
            f"{stage}: {len(failed)} of {len(videos)} videos failed, more than "
            f"ingest.max_bad_fraction {config.ingest.max_bad_fraction} allows: {reasons}"
            f"{'; ...' if len(failed) > 3 else ''}; mend or remove them, or raise the fraction"
        )
    return located


def unsettled(located: Sequence[Located]) -> dict[str, list[str]]:
    """What a later run may settle, for the summary of the artifact; empty where there is nothing.

    Args:
        located: The results that the artifact is made of.
    """
    until = {_held_until(item.entry) for item in located} - {None}
    return {_UNSETTLED: sorted(str(item) for item in until)} if until else {}


def check_work(config: Config, work: Recipe, planned_shards: Sequence[Shard]) -> None:
    """Check that shards are still what they were planned to be.

    Args:
        config: The configuration.
        work: Of the result of one video as it is now, without the video.
        planned_shards: Of a plan.

    Raises:
        ArtifactError: They were planned for other work: the weights have changed since.
    """
    folder = storage.join(config.root_uri, artifacts.shard_folder(work.stage, work.fingerprint))
    if not all(shard.uri.startswith(f"{folder}/") for shard in planned_shards):
        raise ArtifactError(
            f"{work.stage}: the encoder's weights have changed since this run was planned; leave "
            "the file alone while a run reads it, and run again"
        )


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What the results of videos are made by, however often failures were tried again."""
    return {key: value for key, value in recipe.config.items() if key not in _ATTEMPT}


def _tried_again(config: Config, recipe: Recipe, number: int) -> Recipe:
    """The recipe of an artifact that takes the place of one with passing failures."""
    attempt = dict(zip(_ATTEMPT, (number, limits_key(config)), strict=True))
    return recipe.model_copy(update={"config": {**recipe.config, **attempt}})


def _is_unsettled(existing: ArtifactRef, config: Config) -> bool:
    found = artifacts.read_marker(existing.uri).summary.get(_UNSETTLED, [])
    return any(item != limits_key(config) for item in found)


def _held_until(entry: Entry) -> str | None:
    """What a verdict is bound to: the key of limits, or the file's state; None for good."""
    if entry.code in NOT_OF_THE_CONTENT:
        return _FILE
    return (entry.limits or "") if entry.code in BOUND_TO_LIMITS else None


def _video_rows(inputs: Inputs, shard: Shard) -> list[dict[str, Any]]:
    table = schemas.read_table(
        inputs["ingest"].file("videos.parquet"),
        schemas.VIDEOS.name,
        filters=[("video", "in", list(shard.videos)), ("status", "=", "ok")],
        in_parts=True,  # the times of all frames of all videos are a hundred times as much
    )
    rows: list[dict[str, Any]] = table.sort_by("video").to_pylist()
    if [row["video"] for row in rows] != sorted(shard.videos):
        raise ArtifactError(
            f"{inputs['ingest'].uri}: does not hold the videos of the shard {shard.uri}; "
            "plan the stage again"
        )
    return rows


def _computed_or_failed(
    config: Config, row: Mapping[str, Any], schema: TableSchema, compute: Compute
) -> tuple[Entry, pa.Table]:
    names = {"video": row["video"], "content_hash": row["content_hash"]}
    try:
        with blamed_on_content(row["uri"], row["content_hash"], config.runtime.cache_dir):
            computed = compute(row)
    except VideoError as error:
        why = {"code": error.code, "reason": error.reason}
        failed: dict[str, Any] = {**names, **why, "status": "quarantined"}
        if "clip_index" in schema.fields.names:
            failed["clip_index"] = -1
        bound = limits_key(config) if error.code in BOUND_TO_LIMITS else None
        entry = Entry(**names, **why, num_clips=0, limits=bound)
        return entry, schemas.table_from_rows([failed], schema)
    return Entry(**names, num_clips=computed.num_clips), computed.table


def _group_key(group: Sequence[Video]) -> str:
    return artifacts.fingerprint_of([[video.name, video.content_hash] for video in group])


def _shards(root: str, work: Recipe) -> list[str]:
    """All shards of this work."""
    folder = storage.join(root, "shards", work.stage, work.fingerprint)
    return [item.uri for item in storage.list_objects(folder) if item.uri.endswith(".parquet")]


def _located(stage: str, uris: Sequence[str]) -> dict[Video, Located]:
    """Index shards; where two hold the same video, one without failure counts."""
    found: dict[Video, Located] = {}
    with ThreadPoolExecutor(_READERS) as readers:
        for located in readers.map(lambda uri: read_index(uri, _SCHEMAS[stage]), uris):
            for item in located:
                key = Video(name=item.entry.video, content_hash=item.entry.content_hash)
                if key not in found or found[key].entry.code is not None:
                    found[key] = item
    return found

"""Every Arrow schema of the project, with its version, and Parquet in and out.

A table's file carries the schema's name and version in its metadata; a reader refuses a name it
did not ask for and a version it does not know. Times are seconds from the first frame of the
video; intervals are half-open, [start, end). Migration notes for version bumps are in
`docs/schemas.md`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tsp_core import storage
from tsp_core.errors import ArtifactError
from tsp_core.storage import row_groups, sealed

QUARANTINE_CODES = (
    "missing",  # the listed file does not exist, or cannot be read now
    "unreadable",  # not a media file (text, a folder), or damaged beyond opening
    "no_video_stream",  # audio only, a cover picture
    "empty",  # no frame can be decoded
    "truncated",  # decoding stops before the end of the file
    "corrupted",  # decoding fails in the middle
    "checksum",  # not the content that the list promises
    "duplicate_name",  # two files give one video name
    "bad_name",  # a name that cannot be a file name
    "limits",  # frames too large, decoding too slow or too hungry
    "crashed",  # the decoder crashed on it
)
"""Why a video is in quarantine, as short, stable words."""
BOUND_TO_LIMITS = ("limits", "crashed")
"""Codes that another limit, or a decoder that is better or less lucky, may change."""


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """A named, versioned Arrow schema."""

    name: str
    version: int
    fields: pa.Schema

    def with_metadata(self) -> pa.Schema:
        """The Arrow schema with name and version in its metadata."""
        return self.fields.with_metadata(
            {"tsp.schema": self.name, "tsp.version": str(self.version)}
        )


def _schema(name: str, version: int, *fields: tuple[str, pa.DataType]) -> TableSchema:
    return TableSchema(name=name, version=version, fields=pa.schema(list(fields)))


_STRING, _I64, _I32, _I8, _F64 = pa.string(), pa.int64(), pa.int32(), pa.int8(), pa.float64()

VIDEOS = _schema(
    "videos",
    1,
    ("video", _STRING),  # unique name; keys every other table
    ("uri", _STRING),
    ("status", _STRING),  # "ok" | "quarantined"
    ("code", _STRING),  # one of QUARANTINE_CODES, else null
    ("reason", _STRING),  # for people, else null
    ("size_bytes", _I64),
    ("content_hash", _STRING),  # SHA-256 of the file
    ("container", _STRING),
    ("codec", _STRING),
    ("pixel_format", _STRING),
    ("width", _I32),  # pixels as stored, before rotation
    ("height", _I32),
    ("rotation_degrees", _I32),  # counter-clockwise turn that makes the picture upright
    ("color_space", _STRING),
    ("color_range", _STRING),
    ("time_base_num", _I64),  # seconds per tick of pts
    ("time_base_den", _I64),
    ("num_frames", _I64),  # decoded, with distinct pts
    ("duration_seconds", _F64),  # from the first frame's start to the last frame's end
    ("frame_rate_num", _I64),  # frames per second, measured
    ("frame_rate_den", _I64),
    ("is_variable_rate", pa.bool_()),
    ("first_pts", _I64),
    ("ticks_per_frame", _I64),  # pts[i] = first_pts + i*ticks_per_frame, else null
    ("pts", pa.list_(_I64)),  # presentation order; null when ticks_per_frame is given
    ("has_unordered_pts", pa.bool_()),  # the decoder's frames do not come in the order of their pts
    ("keyframes", pa.list_(_I32)),  # frame indices that decoding can start at
    ("num_frames_from_header", _I64),
    ("duration_seconds_from_header", _F64),
    ("frame_rate_from_header", _F64),
    ("num_audio_streams", _I32),
)

PROBES = TableSchema(  # what ingest found out about one state of one file
    name="probes",
    version=1,
    fields=pa.schema([("token", _STRING), *VIDEOS.fields]).remove(1),  # names come later
)

PROXIES = _schema(  # which videos have a proxy
    "proxies",
    1,
    ("content_hash", _STRING),  # SHA-256 of the video
    ("size_bytes", _I64),
)

PROXY = _schema(  # a proxy: an Arrow file, of tsp_core.video.proxy
    "proxy",
    1,
    ("frame", _I64),  # index in the video's timeline, ascending
    ("crc32", pa.uint32()),  # of the packet
    ("packet", pa.large_binary()),  # the coded picture
)

SEGMENTS = _schema(
    "segments",
    1,
    ("video", _STRING),
    ("subset", _STRING),
    ("kind", _STRING),  # "action" | "background" | "ambiguous"
    ("label", _STRING),  # null unless an action
    ("label_index", _I32),  # -1 unless an action
    ("region", _I8),  # 0 action, 1 no action (official order), -1 ambiguous
    ("t_start", _F64),  # seconds, as annotated
    ("t_end", _F64),
)

PROBLEMS = _schema(
    "problems",
    1,
    ("code", _STRING),  # missing_video | beyond_end | reversed | unknown_class ...
    ("file", _STRING),
    ("video", _STRING),
    ("value", _STRING),
    ("message", _STRING),
)

CLIPS = _schema(
    "clips",
    1,
    ("video", _STRING),
    ("subset", _STRING),
    ("label_index", _I32),  # -1 for background
    ("region", _I8),  # 0 action, 1 no action
    ("t_start", _F64),  # segment clipped to [0, duration]
    ("t_end", _F64),
    ("first_start", _F64),  # earliest and latest admissible clip start, both inclusive
    ("last_start", _F64),
    ("status", _STRING),  # "ok" | "too_short" | "no_video"
)


def gvf_schema(feature_size: int) -> TableSchema:
    """GVFs: one row per video, `gvf` of F float32; null where the video failed."""
    return _schema(
        "gvf",
        1,
        ("video", _STRING),
        ("content_hash", _STRING),
        ("status", _STRING),
        ("code", _STRING),
        ("reason", _STRING),
        ("num_clips", _I32),
        ("gvf", pa.list_(pa.float32(), feature_size)),
    )


def features_schema(feature_size: int) -> TableSchema:
    """Features: one row per clip; `t_start`/`t_end` are the extent of the clip in seconds.

    A video that failed has one row with `clip_index` -1 and a null feature.
    """
    return _schema(
        "features",
        1,
        ("video", _STRING),
        ("content_hash", _STRING),
        ("status", _STRING),
        ("code", _STRING),
        ("reason", _STRING),
        ("clip_index", _I32),
        ("t_start", _F64),
        ("t_end", _F64),
        ("is_padded", pa.bool_()),
        ("feature", pa.list_(pa.float32(), feature_size)),
    )


def predictions_schema(num_classes: int) -> TableSchema:
    """Predictions: one row per clip; logits are null where the model lacks the head."""
    return _schema(
        "predictions",
        1,
        ("video", _STRING),
        ("label_index", _I32),  # -1 for background
        ("region", _I8),  # 0 action, 1 no action
        ("start_seconds", _F64),  # of the clip
        ("action_logits", pa.list_(pa.float32(), num_classes)),
        ("region_logits", pa.list_(pa.float32(), 2)),
    )


TIMES = _schema(
    "times",
    1,
    ("video", _STRING),
    ("row", _I32),  # row of the video's features
    ("t_start", _F64),  # extent of the clip in seconds
    ("t_center", _F64),  # the time of the row
    ("t_end", _F64),
    ("is_padded", pa.bool_()),
)

DETECTIONS = _schema(
    "detections",
    1,
    ("localizer", _STRING),  # probes | heads | detector
    ("video", _STRING),
    ("label_index", _I32),
    ("t_start", _F64),  # seconds
    ("t_end", _F64),
    ("score", _F64),  # higher is surer; comparable within a class
)

METRICS = _schema(
    "metrics",
    1,
    ("epoch", _I32),
    ("iteration", _I64),  # optimiser steps since the start
    ("phase", _STRING),  # "train" | "valid"
    ("name", _STRING),  # loss, loss_action, accuracy_region, lr_heads, ...
    ("value", _F64),
)


def table_from_rows(rows: Sequence[dict[str, Any]], schema: TableSchema) -> pa.Table:
    """Build a table from dictionaries; keys that are absent become null."""
    return pa.Table.from_pylist(list(rows), schema=schema.with_metadata())


def write_table(uri: str, table: pa.Table, schema: TableSchema) -> None:
    """Write a table as one Parquet object, atomically; rows with long lists in small row groups.

    Raises:
        ValueError: The table's columns are not those of the schema.
    """
    if table.schema.names != schema.fields.names:
        raise ValueError(f"{schema.name}: columns {table.schema.names} != {schema.fields.names}")
    storage.write_bytes(uri, row_groups.grouped_bytes(table.cast(schema.with_metadata())))


def read_table(
    uri: str,
    name: str,
    *,
    columns: Sequence[str] | None = None,
    filters: Sequence[tuple[str, Any, Any]] = (),
    in_parts: bool = False,
) -> pa.Table:
    """Read a Parquet object of a known schema, in the version of this release.

    Args:
        uri: Path or URI.
        name: The schema's name.
        columns: Columns to read; all by default.
        filters: Conditions that rows must all meet: column, operator, value.
        in_parts: Fetch only the row groups that may hold such rows, for few rows of a large table;
            else the whole object at once.

    Raises:
        ArtifactError: Another schema, another version, or a damaged file (`DamagedError`).
    """
    wanted = None
    if columns is not None:
        wanted = list(dict.fromkeys([*columns, *(key for key, *_ in filters)]))

    def read(file: pq.ParquetFile) -> pa.Table:
        check_schema(file, uri, name)
        table = row_groups.read_matching(file, filters, columns=wanted, in_parts=in_parts)
        if filters:
            table = table.filter(pq.filters_to_expression(list(filters)))
        return table if columns is None else table.select(list(columns))

    return sealed.read_parquet(uri, read, in_parts=in_parts)


def version_of(name: str) -> int:
    """The version of a table that this release writes and reads, by the schema's name."""
    schemas = [value for value in globals().values() if isinstance(value, TableSchema)]
    schemas += [gvf_schema(1), features_schema(1), predictions_schema(1)]
    return {schema.name: schema.version for schema in schemas}[name]


def check_schema(file: pq.ParquetFile, uri: str, name: str) -> None:
    """Refuse a file that holds another table, or another version than this release's.

    Raises:
        ArtifactError: It does.
    """
    check_metadata(file.metadata.metadata or {}, uri, name, version_of(name))


def check_metadata(metadata: dict[bytes, bytes], uri: str, name: str, version: int) -> None:
    """Refuse a file whose metadata name another table, or a version that is not known.

    Raises:
        ArtifactError: They do.
    """
    found = metadata.get(b"tsp.schema", b"").decode() or "(none)"
    found_version = metadata.get(b"tsp.version", b"").decode() or "(none)"
    if found != name:
        raise ArtifactError(f"{uri}: holds the table {found!r}, expected {name!r}")
    if found_version != str(version):
        raise ArtifactError(
            f"{uri}: version {found_version} of the table {name!r} is unknown to this release, "
            f"which reads version {version}; {_fix(found_version, version)}; see docs/schemas.md"
        )


def _fix(found: str, version: int) -> str:
    if not re.fullmatch("[0-9]{1,9}", found):
        return "it says no version that there can be: delete it and run the stage again"
    if int(found) > version:
        return "a newer release wrote it: update this one"
    return "an older release wrote it: run the stage again, or read it with that release"

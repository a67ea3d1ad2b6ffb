"""What features are: encoder, weights, clips, times. Written beside every export.

`manifest.json` tells what no feature file carries and what downstream configurations need;
`times.parquet` holds the exact time of every row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tsp_core.artifacts import Frozen
from tsp_core.config import ClipConfig, Precision
from tsp_core.errors import ArtifactError
from tsp_core.features.rows import FeatureRows, VideoFacts, nominal_centers
from tsp_core.schemas import TIMES as TIMES_SCHEMA
from tsp_core.storage.sealed import SealedWriter

MANIFEST = "manifest.json"
TIMES = "times.parquet"
MANIFEST_VERSION = 1


class FeatureSource(Frozen):
    """How features were computed.

    Attributes:
        encoder: Name of the encoder.
        feature_size: F.
        checkpoint: Identity of its weights: a hash of the file, or `random:SEED`.
        clip: What one clip is.
        stride: Sampled frames between the starts of clips.
        precision: Arithmetic of the encoder.
    """

    encoder: str
    feature_size: int
    checkpoint: str
    clip: ClipConfig
    stride: int
    precision: Precision


class Quarantined(Frozen):
    """A video without features, and why."""

    code: str
    reason: str


def parse_manifest(content: bytes, uri: str) -> dict[str, Any]:
    """Parse a manifest.

    Raises:
        ArtifactError: It is damaged or of an unknown version.
    """
    try:
        manifest: dict[str, Any] = json.loads(content)
        version = manifest.get("manifest_version")
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f"{uri}: damaged {MANIFEST} ({error}); export again") from None
    if version != MANIFEST_VERSION:
        raise ArtifactError(
            f"{uri}: manifest version {version!r} is unknown to this release, which reads "
            f"{MANIFEST_VERSION}; see docs/schemas.md"
        )
    return manifest


class ManifestWriter:
    """Gathers the manifest of a folder of features and writes it, with the times of all rows."""

    def __init__(self, folder: Path, source: FeatureSource, files: dict[str, str]) -> None:
        self._folder = folder
        self._source = source
        self._files = files
        self._videos: dict[str, dict[str, Any]] = {}
        self._times = SealedWriter(folder / TIMES, TIMES_SCHEMA.with_metadata())

    @property
    def num_rows(self) -> int:
        """Rows of all videos so far."""
        return sum(video["rows"] for video in self._videos.values())

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video."""
        count = len(rows.features)
        nominal = nominal_centers(count, self._source.clip, self._source.stride)
        self._videos[rows.video] = {
            "rows": count,
            "is_padded": bool(rows.is_padded.any()),
            "max_time_error_seconds": round(float(np.abs(rows.centers_seconds - nominal).max()), 9),
            "num_frames": facts.num_frames,
            "duration_seconds": facts.duration_seconds,
            "frame_rate": float(facts.frame_rate),
            "frame_rate_exact": str(facts.frame_rate),
            "is_variable_rate": facts.is_variable_rate,
            "content_hash": rows.content_hash,
        }
        self._times.write_table(_times_table(rows))

    def close(self, quarantined: Mapping[str, Quarantined]) -> None:
        """Write `manifest.json` and complete `times.parquet`."""
        self._times.close()
        length, rate = self._source.clip.length, self._source.clip.frame_rate
        manifest = {
            "manifest_version": MANIFEST_VERSION,
            **self._source.model_dump(mode="json"),
            "row_time": {
                "meaning": "row i is clip i; its time is the centre of the clip's extent; "
                f"exact times of all rows are in {TIMES}",
                "start_seconds": "i * stride / frame_rate",
                "center_seconds": "(i * stride + length / 2) / frame_rate",
                "extent_seconds": length / rate,
                "step_seconds": self._source.stride / rate,
                "first_center_seconds": length / 2 / rate,
            },
            "files": self._files,
            "videos": self._videos,
            "quarantined": {
                name: entry.model_dump(mode="json") for name, entry in quarantined.items()
            },
        }
        (self._folder / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """Write a manifest: equal content gives equal bytes."""
    return json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_times(path: Path, tables: Mapping[str, pa.Table]) -> None:
    """Write the times of all rows as `ManifestWriter` does, from one table for each video.

    Args:
        path: Local file to write.
        tables: Of the schema TIMES, by video.
    """
    writer = SealedWriter(path, TIMES_SCHEMA.with_metadata())
    for _, table in sorted(tables.items()):
        writer.write_table(table.cast(TIMES_SCHEMA.with_metadata()).combine_chunks())
    writer.close()


def _times_table(rows: FeatureRows) -> pa.Table:
    count = len(rows.features)
    columns: dict[str, Any] = {
        "video": pa.repeat(rows.video, count),
        "row": pa.array(np.arange(count, dtype=np.int32)),
        "t_start": pa.array(rows.starts_seconds),
        "t_center": pa.array(rows.centers_seconds),
        "t_end": pa.array(rows.ends_seconds),
        "is_padded": pa.array(rows.is_padded),
    }
    schema = TIMES_SCHEMA.with_metadata()
    return pa.table([columns[name] for name in schema.names], schema=schema)

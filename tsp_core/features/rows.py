"""Features of one video as rows with times, and as an Arrow table.

Row i belongs to clip i. Its time is defined once, here: the centre of the clip's extent,
`start + length / (2 * frame_rate)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tsp_core.config import ClipConfig
from tsp_core.schemas import features_schema


@dataclass(frozen=True, kw_only=True)
class FeatureRows:
    """Features of one video in the order of time.

    Attributes:
        video: Name of the video.
        content_hash: SHA-256 of the video file.
        features: float32 [N, F].
        starts_seconds: float64 [N], starts of the clips' extents, which are half-open.
        ends_seconds: float64 [N].
        is_padded: bool [N]; true where a video shorter than one clip was padded to it.
    """

    video: str
    content_hash: str
    features: NDArray[np.float32]
    starts_seconds: NDArray[np.float64]
    ends_seconds: NDArray[np.float64]
    is_padded: NDArray[np.bool_]

    def __post_init__(self) -> None:
        assert self.features.ndim == 2, self.features.shape
        assert self.features.dtype == np.float32, self.features.dtype
        assert len(self.features) == len(self.starts_seconds) == len(self.ends_seconds)

    @property
    def centers_seconds(self) -> NDArray[np.float64]:
        """Time of each row: the centre of its clip's extent, float64 [N]."""
        return np.asarray((self.starts_seconds + self.ends_seconds) / 2)


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What was measured of a video file, for manifests and annotation files."""

    num_frames: int
    duration_seconds: float
    frame_rate: Fraction
    is_variable_rate: bool


def facts_from_row(row: Mapping[str, Any]) -> VideoFacts:
    """Take the facts from a row of the videos table."""
    return VideoFacts(
        num_frames=int(row["num_frames"]),
        duration_seconds=float(row["duration_seconds"]),
        frame_rate=Fraction(int(row["frame_rate_num"]), int(row["frame_rate_den"])),
        is_variable_rate=bool(row["is_variable_rate"]),
    )


def nominal_centers(num_rows: int, clip: ClipConfig, stride: int) -> NDArray[np.float64]:
    """Times of rows on the regular grid: `(i * stride + length / 2) / frame_rate` seconds.

    Clips start at real frames, so exact times differ from these by less than one frame of the
    video; downstream readers know only this grid.
    """
    first = np.arange(num_rows, dtype=np.float64) * stride
    return (first + clip.length / 2) / clip.frame_rate


def table_from_features(rows: FeatureRows) -> pa.Table:
    """Build a features table, one row per clip."""
    count, size = rows.features.shape
    schema = features_schema(size).with_metadata()
    flat = pa.array(np.ascontiguousarray(rows.features).reshape(-1))
    columns: dict[str, Any] = {
        "video": pa.repeat(rows.video, count),
        "content_hash": pa.repeat(rows.content_hash, count),
        "status": pa.repeat("ok", count),
        "code": pa.nulls(count, pa.string()),
        "reason": pa.nulls(count, pa.string()),
        "clip_index": pa.array(np.arange(count, dtype=np.int32)),
        "t_start": pa.array(rows.starts_seconds),
        "t_end": pa.array(rows.ends_seconds),
        "is_padded": pa.array(rows.is_padded),
        "feature": pa.FixedSizeListArray.from_arrays(flat, size),
    }
    return pa.table([columns[name] for name in schema.names], schema=schema)


def features_from_table(table: pa.Table) -> FeatureRows:
    """Take the features of one video from its rows of a features table."""
    size = table.schema.field("feature").type.list_size
    feature: Any = table.column("feature").combine_chunks()
    return FeatureRows(
        video=str(table.column("video")[0]),
        content_hash=str(table.column("content_hash")[0]),
        features=feature.flatten().to_numpy().reshape(-1, size),
        starts_seconds=table.column("t_start").to_numpy(),
        ends_seconds=table.column("t_end").to_numpy(),
        is_padded=table.column("is_padded").to_numpy(),
    )

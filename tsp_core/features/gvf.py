"""Global video features (GVF; paper, section 3.3): pooling, the table of them, and its files.

A GVF is the element-wise maximum (or mean) of the features of all clips of an untrimmed video,
computed once with the encoder as it is before TSP training, and then frozen.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsp_core import storage
from tsp_core.errors import ArtifactError, GvfError
from tsp_core.schemas import gvf_schema, read_table, table_from_rows

_H5: Any = h5py  # which carries no types
_H5_MAGIC = b"\x89HDF\r\n\x1a\n"
_SHOWN_NAMES = 5


def pool(features: NDArray[np.float32], pooling: Literal["max", "avg"]) -> NDArray[np.float32]:
    """Pool the features of a video's clips, float32 [N, F], to its GVF, float32 [F]."""
    assert features.ndim == 2, features.shape
    assert len(features) > 0, "a video has at least one clip"
    if pooling == "max":
        return np.asarray(features.max(axis=0), dtype=np.float32)
    return np.asarray(features.mean(axis=0, dtype=np.float64), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class GvfTable:
    """The GVFs of a dataset.

    Attributes:
        source: Where they come from, for messages.
        names: Names of the V videos.
        values: float32 [V, F].
        failed: Reason by video, for the videos whose GVF could not be computed.
    """

    source: str
    names: tuple[str, ...]
    values: NDArray[np.float32]
    failed: Mapping[str, str] = field(default_factory=dict)
    _rows: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", {name: row for row, name in enumerate(self.names)})

    @property
    def feature_size(self) -> int:
        """F, the size of one GVF."""
        return int(self.values.shape[1])

    def __contains__(self, video: str) -> bool:
        return video in self._rows

    def lookup(self, video: str) -> NDArray[np.float32]:
        """Return the GVF of a video, float32 [F].

        Raises:
            GvfError: There is none.
        """
        if video not in self._rows:
            raise GvfError(self._missing([video]))
        return np.asarray(self.values[self._rows[video]])

    def check(self, videos: Iterable[str], *, feature_size: int, encoder: str) -> None:
        """Make sure that the GVFs fit an encoder and that no video lacks one.

        Args:
            videos: Names of the videos that are going to be looked up.
            feature_size: F of the encoder.
            encoder: Name of the encoder, for the message.

        Raises:
            GvfError: Naming the sizes, or the videos.
        """
        if self.feature_size != feature_size:
            raise GvfError(
                f"{self.source}: GVFs of size {self.feature_size}, but the encoder {encoder} gives "
                f"features of size {feature_size}; compute them with {encoder}, or set "
                "encoder.name to the encoder that they were computed with"
            )
        missing = sorted(video for video in set(videos) if video not in self._rows)
        if missing:
            raise GvfError(self._missing(missing))

    def _missing(self, videos: Sequence[str]) -> str:
        shown = ", ".join(
            f"{video!r} ({self.failed[video]})" if video in self.failed else repr(video)
            for video in videos[:_SHOWN_NAMES]
        )
        more = f" and {len(videos) - _SHOWN_NAMES} more" if len(videos) > _SHOWN_NAMES else ""
        return (
            f"{self.source}: no GVF for {len(videos)} of the videos: {shown}{more}; add them to "
            "the file, leave the videos out of the annotations, or unset gvf.file to compute GVFs"
        )


def read_gvf(uri: str) -> GvfTable:
    """Read GVFs from a Parquet file of this project or an H5 file in the released layout.

    The released layout has one dataset of F float32 numbers per video, named by the video file's
    name without its ending. The kind of file is told from its content.

    Raises:
        GvfError: Not such a file, sizes that differ between videos, or numbers that are not finite.
        StorageError: There is no such file.
    """
    data = storage.read_bytes(uri)
    if data.startswith(_H5_MAGIC):
        table = _read_h5(uri, data)
    elif data.startswith(b"PAR1"):
        table = _read_parquet(uri)
    else:
        raise GvfError(f"{storage.redact(uri)}: neither an H5 nor a Parquet file of GVFs")
    finite = np.isfinite(table.values).all(axis=1)
    if not finite.all():
        name = table.names[int(np.argmin(finite))]
        raise GvfError(f"{table.source}: the GVF of {name!r} has values that are not finite")
    return table


def h5_bytes(table: GvfTable) -> bytes:
    """Write GVFs as an H5 file in the released layout; equal tables give equal bytes."""
    buffer = io.BytesIO()
    with _H5.File(buffer, "w", libver="earliest", track_order=False) as file:
        for name in sorted(table.names):
            file.create_dataset(name, data=table.lookup(name), dtype=np.float32, track_times=False)
    return buffer.getvalue()


def gvf_from_table(table: pa.Table, *, source: str) -> GvfTable:
    """Take the GVFs from a table of the GVF schema."""
    size = table.schema.field("gvf").type.list_size
    ok = table.filter(pc.field("status") == "ok")
    failed = table.filter(pc.field("status") != "ok").select(["video", "reason"]).to_pylist()
    vectors: Any = ok["gvf"].combine_chunks()
    return GvfTable(
        source=source,
        names=tuple(str(name) for name in ok["video"].to_pylist()),
        values=vectors.flatten().to_numpy().reshape(-1, size),
        failed={row["video"]: row["reason"] for row in failed},
    )


def table_from_gvf(table: GvfTable, videos: Sequence[str]) -> pa.Table:
    """Build a table of the GVF schema with the given videos of imported GVFs.

    Raises:
        GvfError: A video has none.
    """
    rows = [{"video": name, "status": "ok", "gvf": table.lookup(name)} for name in videos]
    return table_from_rows(rows, gvf_schema(table.feature_size))


def _read_parquet(uri: str) -> GvfTable:
    source = storage.redact(uri)
    try:
        table = read_table(uri, "gvf")
    except ArtifactError as error:
        raise GvfError(str(error)) from None
    return gvf_from_table(table, source=source)


def _read_h5(uri: str, data: bytes) -> GvfTable:
    source = storage.redact(uri)
    try:
        with _H5.File(io.BytesIO(data), "r") as file:
            names = sorted(file)
            values = [_h5_row(source, name, file[name]) for name in names]
    except (GvfError, MemoryError):
        raise
    except Exception as error:  # h5py fails in many ways on damaged files
        raise GvfError(f"{source}: damaged H5 file ({error}); fetch it again") from error
    if not names:
        raise GvfError(f"{source}: an H5 file without any dataset; expected one per video")
    sizes = {len(value): name for name, value in zip(names, values, strict=True)}
    if len(sizes) > 1:
        found = ", ".join(f"{size} ({name!r})" for size, name in sorted(sizes.items()))
        raise GvfError(f"{source}: GVFs of different sizes: {found}; one encoder gives one size")
    return GvfTable(source=source, names=tuple(names), values=np.stack(values))


def _h5_row(source: str, name: str, item: Any) -> NDArray[np.float32]:
    if not isinstance(item, _H5.Dataset) or item.ndim != 1 or item.dtype.kind != "f":
        shape = getattr(item, "shape", "a group")
        raise GvfError(
            f"{source}: {name!r} is {shape}, expected one dataset of F floating-point numbers per "
            "video"
        )
    return np.asarray(item[()], dtype=np.float32)

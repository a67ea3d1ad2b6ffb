"""The clip index as memory-mapped Arrow files, shared by all loader processes.

The Parquet tables are rewritten once per run as uncompressed Arrow IPC files in a local folder.
Every process maps those into memory: the kernel holds one copy of the pages for all of them, and
opening the index takes the same few milliseconds for a hundred clips or a million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tsp_core.errors import ArtifactError, GvfError

_CLIPS, _VIDEOS, _GVF = "clips.arrow", "videos.arrow", "gvf.npy"
_LISTS = ["pts", "keyframes"]  # columns of lists, of as many numbers as a video has frames
INDEX_FILES = (_CLIPS, _VIDEOS, _GVF)
"""Names of the files in an index's folder; the last is there when global features are used."""


@dataclass(frozen=True, kw_only=True)
class ClipIndex:
    """Segments that can hold a clip, and what is needed to read their videos.

    Attributes:
        folder: Where the files are; all that another process needs to open the same index.
        clips: One row per segment, in the order of the CLIPS table.
        videos: The VIDEOS rows of their videos, and `proxy`: the URI of a video's proxy, or null.
        video_indices: int32 [N], row of each segment's video in `videos`.
        label_indices: int32 [N], -1 for background.
        regions: int8 [N], 0 action, 1 no action.
        first_starts: float64 [N] seconds, earliest start of a clip.
        last_starts: float64 [N] seconds, latest start of a clip.
        gvf: float32 [V, F], global video feature of each row of `videos`, or None.
    """

    folder: Path
    clips: pa.Table
    videos: pa.Table
    video_indices: NDArray[np.int32]
    label_indices: NDArray[np.int32]
    regions: NDArray[np.int8]
    first_starts: NDArray[np.float64]
    last_starts: NDArray[np.float64]
    gvf: NDArray[np.float32] | None

    def rows_of(self, subset: str) -> NDArray[np.int64]:
        """Rows of a subset, in order."""
        mask = pc.equal(self.clips["subset"], pa.scalar(subset)).to_numpy()
        return np.flatnonzero(mask).astype(np.int64)

    def starts(self, rows: NDArray[np.int64], ratios: NDArray[np.float64]) -> NDArray[np.float64]:
        """Start in seconds of the clip at each ratio of each row's admissible interval."""
        first = self.first_starts[rows]
        return first + ratios * (self.last_starts[rows] - first)

    def start(self, row: int, ratio: float) -> float:
        """Start in seconds of one clip, as `starts` has it."""
        first = self.first_starts[row]
        return float(first + ratio * (self.last_starts[row] - first))

    def video_row(self, video_index: int) -> dict[str, Any]:
        """The row of a video; `pts` and `keyframes` are views of the mapped file."""
        row = self.videos.slice(video_index, 1)
        values: dict[str, Any] = row.drop_columns(_LISTS).to_pylist()[0]
        return values | {name: pc.list_flatten(row[name]).to_numpy() for name in _LISTS}

    def video_name(self, row: int) -> str:
        """Name of a segment's video."""
        return str(self.videos["video"][int(self.video_indices[row])].as_py())

    def describe(self, row: int, ratio: float) -> str:
        """Name a clip for a message: its video and start."""
        return f"{self.video_name(row)} at {self.start(row, ratio):.3f} s"


def write_index(
    folder: Path,
    *,
    videos: pa.Table,
    clips: pa.Table,
    gvf: Mapping[str, NDArray[np.float32]] | None = None,
    proxies: Mapping[str, str] | None = None,
) -> None:
    """Write the index files.

    Args:
        folder: Where to; it must exist.
        videos: Table of the schema VIDEOS.
        clips: Table of the schema CLIPS; rows whose status is not "ok" are left out.
        gvf: Global video feature by video name, float32 [F] each; None trains without.
        proxies: URI of the proxy to read instead of a video, by the video's SHA-256.

    Raises:
        ArtifactError: A clip's video is not among the usable videos.
        GvfError: A clip's video has no global video feature; the message names it.
    """
    clips = clips.filter(pc.field("status") == "ok")
    usable = videos.filter(pc.field("status") == "ok")
    used = usable.filter(pc.is_in(usable["video"], value_set=pc.unique(clips["video"])))
    indices = pc.index_in(clips["video"], value_set=used["video"].combine_chunks())
    if indices.null_count:
        lost = pc.unique(clips.filter(pc.is_null(indices))["video"]).to_pylist()
        raise ArtifactError(
            f"clip index: {_some(lost)}: not among the usable videos; run the index stage again"
        )
    columns = clips.select(["subset", "label_index", "region", "first_start", "last_start"])
    _write_arrow(folder / _CLIPS, columns.append_column("video_index", indices))
    uris = [(proxies or {}).get(str(name)) for name in used["content_hash"].to_pylist()]
    _write_arrow(folder / _VIDEOS, used.append_column("proxy", pa.array(uris, pa.string())))
    (folder / _GVF).unlink(missing_ok=True)
    if gvf is not None:
        np.save(folder / _GVF, _gvf_matrix(used["video"].to_pylist(), gvf))


def open_index(folder: Path) -> ClipIndex:
    """Map the files that `write_index` wrote into memory."""
    clips = _map_arrow(folder / _CLIPS)
    gvf_file = folder / _GVF
    return ClipIndex(
        folder=folder,
        clips=clips,
        videos=_map_arrow(folder / _VIDEOS),
        video_indices=_view(clips, "video_index"),
        label_indices=_view(clips, "label_index"),
        regions=_view(clips, "region"),
        first_starts=_view(clips, "first_start"),
        last_starts=_view(clips, "last_start"),
        gvf=np.load(gvf_file, mmap_mode="r") if gvf_file.exists() else None,
    )


def _gvf_matrix(names: list[Any], gvf: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    missing = [name for name in names if name not in gvf]
    if missing:
        raise GvfError(
            f"global video features: none for {_some(missing)}; run the gvf stage again, or give "
            "a file that holds every video (gvf.file)"
        )
    return np.stack([np.asarray(gvf[name], dtype=np.float32) for name in names])


def _some(names: list[Any]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _write_arrow(path: Path, table: pa.Table) -> None:
    table = table.combine_chunks()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _map_arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _view(table: pa.Table, column: str) -> NDArray[Any]:
    """A NumPy view of a column without nulls: no copy, the pages stay in the mapped file."""
    chunks = table[column].chunks
    array: NDArray[Any] = (
        chunks[0].to_numpy(zero_copy_only=True) if chunks else np.empty(0, dtype=np.int64)
    )
    return array

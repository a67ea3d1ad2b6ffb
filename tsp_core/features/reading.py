"""Reads the features of a published export, whatever format it was written in."""

from __future__ import annotations

import io
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tsp_core import storage
from tsp_core.errors import ArtifactError
from tsp_core.features.manifest import MANIFEST, TIMES, parse_manifest
from tsp_core.schemas import read_table

_H5: Any = h5py  # which carries no types
_PREFERENCE = ("h5", "parquet", "npy", "pkl")
_PICKLED_NAMES = {"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer"}

ReadVideo = Callable[[str], NDArray[np.float32]]
"""Returns the features of a video, float32 [N, F]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportedFeatures:
    """An open export.

    Attributes:
        manifest: Content of `manifest.json`.
        centers_seconds: Time of every row by video, float64 [N].
        read: Returns the features of a video.
    """

    manifest: Mapping[str, Any]
    centers_seconds: Mapping[str, NDArray[np.float64]]
    read: ReadVideo


@contextmanager
def opened_export(uri: str) -> Iterator[ExportedFeatures | None]:
    """Open an export for reading; yields None when it holds features in no format.

    Videos are read one by one, when they are asked for.

    Args:
        uri: Folder of the export.

    Raises:
        ArtifactError: A file is damaged.
    """
    manifest = parse_manifest(storage.read_bytes(storage.join(uri, MANIFEST)), uri)
    formats = [name for name in _PREFERENCE if name in manifest["files"]]
    if not formats:
        yield None
        return
    target = storage.join(uri, manifest["files"][formats[0]])
    with _READERS[formats[0]](target, sorted(manifest["videos"])) as read:
        yield ExportedFeatures(
            manifest=manifest, centers_seconds=_centers(storage.join(uri, TIMES)), read=read
        )


def _centers(uri: str) -> dict[str, NDArray[np.float64]]:
    table = read_table(uri, "times", columns=["video", "t_center"])
    videos = table["video"].combine_chunks().dictionary_encode()
    centers = table["t_center"].to_numpy()
    codes: NDArray[np.int64] = np.asarray(videos.indices.to_numpy(), dtype=np.int64)
    firsts = np.flatnonzero(np.diff(codes, prepend=-1))  # the rows of a video are together
    names = videos.dictionary.to_pylist()
    parts = np.split(centers, firsts[1:]) if len(firsts) else []
    return {names[codes[first]]: part for first, part in zip(firsts, parts, strict=True)}


@contextmanager
def _local_file(uri: str) -> Iterator[Path]:
    """The object as a local file: itself, or a copy that goes away."""
    if storage.is_local(uri):
        yield storage.local_path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="tsp-features-") as folder:
        path = Path(folder, uri.rpartition("/")[2])
        storage.download(uri, path)
        yield path


@contextmanager
def _h5(uri: str, videos: list[str]) -> Iterator[ReadVideo]:
    del videos
    with _local_file(uri) as path, _H5.File(path, "r") as file:
        yield lambda video: np.asarray(file[video][:], dtype=np.float32)


@contextmanager
def _parquet(uri: str, videos: list[str]) -> Iterator[ReadVideo]:
    """One row group per video, in the order of their names."""
    groups = {video: number for number, video in enumerate(videos)}
    with _local_file(uri) as path, pq.ParquetFile(path) as file:

        def read(video: str) -> NDArray[np.float32]:
            column: Any = file.read_row_group(groups[video], columns=["video", "feature"])
            if set(column["video"].to_pylist()) != {video}:
                raise ArtifactError(
                    f"{uri}: row group {groups[video]} is not that of {video!r}; export again"
                )
            rows = column["feature"].combine_chunks()
            return np.asarray(rows.flatten().to_numpy().reshape(len(rows), -1))

        yield read


@contextmanager
def _npy(pattern: str, videos: list[str]) -> Iterator[ReadVideo]:
    del videos

    def read(video: str) -> NDArray[np.float32]:
        data = storage.read_bytes(pattern.replace("{video}", video))
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), dtype=np.float32)

    yield read


@contextmanager
def _pkl(pattern: str, videos: list[str]) -> Iterator[ReadVideo]:
    del videos

    def read(video: str) -> NDArray[np.float32]:
        uri = pattern.replace("{video}", video)
        return np.asarray(_ArraysOnly(io.BytesIO(storage.read_bytes(uri)), uri).load())

    yield read


class _ArraysOnly(pickle.Unpickler):
    """Loads pickled arrays and refuses everything else: a pickle can run any code."""

    def __init__(self, file: IO[bytes], uri: str) -> None:
        super().__init__(file)
        self._uri = uri

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in _PICKLED_NAMES:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):  # how protocols below 3 write bytes
            return super().find_class(module, name)
        raise ArtifactError(f"{self._uri}: holds {module}.{name}, not an array; export again")


_READERS: Mapping[str, Any] = {"h5": _h5, "parquet": _parquet, "npy": _npy, "pkl": _pkl}

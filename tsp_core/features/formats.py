"""The file formats of exported features: one writer per format, taking one video at a time.

Extensions add formats with `register_format`. Every writer gives the same bytes for the same
features.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import h5py
import numpy as np

from tsp_core import extensions
from tsp_core.errors import ConfigError
from tsp_core.features.rows import FeatureRows, VideoFacts, table_from_features
from tsp_core.schemas import features_schema
from tsp_core.storage.sealed import SealedWriter

_H5: Any = h5py  # which carries no types


class FeatureWriter(Protocol):
    """Writes the features of many videos below one folder."""

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video; videos come in the order of their names."""
        ...

    def close(self) -> None:
        """Complete the files."""
        ...


class WriterClass(Protocol):
    """Opens a writer in a folder that exists."""

    def __call__(self, folder: Path, feature_size: int) -> FeatureWriter: ...


class H5Writer:
    """One HDF5 file in the released layout: dataset `video-name`, N x F float32.

    Creation times are left out, so that the same features give the same bytes.
    """

    def __init__(self, folder: Path, feature_size: int, *, name: str = "features.h5") -> None:
        del feature_size  # the datasets carry it
        self._file = _H5.File(folder / name, "w", libver="earliest", track_order=False)

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video's rows, float32 [N, F]."""
        del facts
        self.write_array(rows.video, rows.features)

    def write_array(self, video: str, values: np.ndarray) -> None:
        """Add one video's array, float32."""
        self._file.create_dataset(video, data=values, dtype=np.float32, track_times=False)

    def close(self) -> None:
        """Complete the file."""
        self._file.close()


class NpyWriter:
    """One `<video>.npy` per video: N x F float32, C order."""

    def __init__(self, folder: Path, feature_size: int) -> None:
        del feature_size
        self._folder = folder

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video's rows, float32 [N, F]."""
        del facts
        np.save(self._folder / f"{rows.video}.npy", np.ascontiguousarray(rows.features))

    def close(self) -> None:
        """Nothing is left open."""


class PklWriter:
    """One `<video>.pkl` per video: a pickled N x F float32 array, as the released code writes.

    The array's constructor is named as NumPy 1 names it; NumPy 2 keeps that name for old pickles,
    while NumPy before 1.26, which most localization code pins, does not know NumPy 2's.
    """

    _NUMPY2, _NUMPY1 = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"

    def __init__(self, folder: Path, feature_size: int) -> None:
        del feature_size
        self._folder = folder

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video's rows, float32 [N, F]."""
        del facts
        pickled = pickle.dumps(np.ascontiguousarray(rows.features), protocol=3)
        pickled = pickled.replace(self._NUMPY2, self._NUMPY1, 1)
        (self._folder / f"{rows.video}.pkl").write_bytes(pickled)

    def close(self) -> None:
        """Nothing is left open."""


class ParquetWriter:
    """One Parquet file in the features schema, one row per clip, one row group per video."""

    def __init__(self, folder: Path, feature_size: int) -> None:
        schema = features_schema(feature_size).with_metadata()
        self._file = SealedWriter(folder / "features.parquet", schema)

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video's rows, float32 [N, F]."""
        del facts
        self._file.write_table(table_from_features(rows))

    def close(self) -> None:
        """Complete the file."""
        self._file.close()


@dataclass(frozen=True, kw_only=True)
class FeatureFormat:
    """A file format of features.

    Attributes:
        writer: Writes it.
        layout: Where the features of a video are, relative to the format's folder, with `{video}`
            for its name.
    """

    writer: WriterClass
    layout: str


_formats: dict[str, FeatureFormat] = {
    "h5": FeatureFormat(writer=H5Writer, layout="features.h5"),
    "npy": FeatureFormat(writer=NpyWriter, layout="{video}.npy"),
    "pkl": FeatureFormat(writer=PklWriter, layout="{video}.pkl"),
    "parquet": FeatureFormat(writer=ParquetWriter, layout="features.parquet"),
}

FORMATS: Mapping[str, FeatureFormat] = MappingProxyType(_formats)
"""Every format by its name; `tsp_core.extensions.FEATURE_FORMATS` holds the same names."""


def register_format(name: str, format: FeatureFormat) -> None:
    """Add a feature format; called by an extension when it is imported.

    Raises:
        ConfigError: The name is taken.
    """
    extensions.FEATURE_FORMATS.add(name, getattr(format.writer, "__module__", name))
    _formats[name] = format


def find_format(name: str) -> FeatureFormat:
    """Look a format up.

    Raises:
        ConfigError: No such format.
    """
    try:
        return _formats[extensions.FEATURE_FORMATS.known(name)]
    except ValueError as error:
        raise ConfigError(f"export.formats: {error}") from None

"""Parquet files that tell when they are damaged.

Data pages carry checksums, which the format knows. What it does not know is a checksum of the
footer, which says where the pages are and what they hold; so the footer carries a *seal*: its own
SHA-256, taken with the seal's digits as zeros. Together they cover all that a reader interprets,
whether it reads the whole file or, over the network, parts of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from tsp_core import storage
from tsp_core.errors import ArtifactError

_KEY = "tsp.seal"
_BLANK = "0" * 64
_PLACE = _KEY.encode() + b"\x18\x40"  # in a footer: the key, then a string of 64 bytes
_TAIL_BYTES = 8  # length of the footer, then the magic word
_MAGIC = b"PAR1"
_READINGS = 3  # damage on the way is gone at another reading, damage in the store is not
R = TypeVar("R")


class DamagedError(ArtifactError):
    """A Parquet file is not what was written."""


class SealedWriter(pq.ParquetWriter):
    """A `ParquetWriter` into a local file that is sealed when it is closed."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        super().__init__(path, schema, compression="zstd", write_page_checksum=True)
        self._path = path

    def close(self) -> None:
        """Write the footer and seal it; closing again does nothing."""
        if not self.is_open:
            return
        self.add_key_value_metadata({_KEY: _BLANK})
        super().close()
        with self._path.open("r+b") as file:
            _seal(file)


def table_bytes(
    table: pa.Table, *, groups: Sequence[pa.Table] | None = None, **options: Any
) -> bytes:
    """Write a table as a sealed Parquet file.

    Args:
        table: The table.
        groups: The same rows, cut into row groups.
        options: Of `pyarrow.parquet.ParquetWriter`.
    """
    file = io.BytesIO()
    with pq.ParquetWriter(
        file, table.schema, compression="zstd", write_page_checksum=True, **options
    ) as writer:
        for group in groups or [table]:
            writer.write_table(group)
        writer.add_key_value_metadata({_KEY: _BLANK})
    _seal(file)
    return file.getvalue()


def read_parquet(uri: str, work: Callable[[pq.ParquetFile], R], *, in_parts: bool = False) -> R:
    """Read from a Parquet object; what is damaged is read again.

    Args:
        uri: Path or URI.
        work: Reads what it wants from the file; it may be called again.
        in_parts: Fetch only what is read, for large files; else the whole object at once.

    Raises:
        DamagedError: It is damaged in the store, or no Parquet file.
        StorageError, StorageUnavailableError: As `tsp_core.storage` raises them.
    """

    def read(file: IO[bytes]) -> R:
        with noticing_damage(uri):
            return work(open_parquet(file, uri))

    if in_parts:
        return read_again(lambda: storage.read_with(uri, read))
    return read_again(lambda: read(io.BytesIO(storage.read_bytes(uri))))


def read_again(work: Callable[[], R]) -> R:
    """Repeat what raises DamagedError a few times."""
    for _ in range(_READINGS - 1):
        with contextlib.suppress(DamagedError):
            return work()
    return work()


@contextmanager
def noticing_damage(uri: str) -> Iterator[None]:
    """Raise DamagedError for what pyarrow finds wrong in a file; a store's errors pass."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:  # names in a footer may be any bytes
        raise _damaged(uri, error) from None
    except OSError as error:
        if error.errno is not None or isinstance(error, TimeoutError):
            raise
        raise _damaged(uri, error) from None


def open_parquet(file: IO[bytes], uri: str) -> pq.ParquetFile:
    """Open a Parquet file for reading, checking its seal; pages are checked as they are read.

    A file without a seal, which this project did not write, is opened as it is.

    Raises:
        DamagedError: The seal does not hold, or it is no Parquet file.
    """
    footer = _footer(file, uri)
    place = footer.find(_PLACE)
    if place >= 0 and not _holds(footer, place + len(_PLACE)):
        raise _damaged(uri, "the footer does not match its checksum")
    file.seek(0)
    with noticing_damage(uri):
        return pq.ParquetFile(file, page_checksum_verification=True)


def _damaged(uri: str, why: object) -> DamagedError:
    return DamagedError(
        f"{storage.redact(uri)}: not a readable Parquet file ({why}); delete it and run the "
        "stage again"
    )


def _seal(file: Any) -> None:
    footer = _footer(file, "the file")
    place = footer.find(_PLACE)
    assert place >= 0, "the footer has a place for the seal"
    seal = hashlib.sha256(footer).hexdigest().encode()
    file.seek(place + len(_PLACE) - len(footer) - _TAIL_BYTES, io.SEEK_END)
    file.write(seal)


def _holds(footer: bytes, place: int) -> bool:
    seal = footer[place : place + len(_BLANK)]
    blank = footer[:place] + _BLANK.encode() + footer[place + len(_BLANK) :]
    return hashlib.sha256(blank).hexdigest().encode() == seal


def _footer(file: IO[bytes], uri: str) -> bytes:
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - _TAIL_BYTES, 0))
    tail = file.read(_TAIL_BYTES)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length + _TAIL_BYTES > size:
        raise _damaged(uri, "it does not end as one")
    file.seek(size - _TAIL_BYTES - length)
    return file.read(length)

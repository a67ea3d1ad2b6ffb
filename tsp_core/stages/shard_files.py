"""The files of shards: one row group per video, and an index of the videos in the metadata."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tsp_core import schemas, storage
from tsp_core.artifacts import Frozen
from tsp_core.errors import ObjectNotFoundError
from tsp_core.schemas import TableSchema
from tsp_core.storage import faults
from tsp_core.storage.sealed import (
    DamagedError,
    SealedWriter,
    noticing_damage,
    open_parquet,
    read_again,
    read_parquet,
)

_INDEX_KEY = "tsp.videos"
_logger = logging.getLogger(__name__)


class Entry(Frozen):
    """One video of a shard.

    Attributes:
        video: Its name.
        content_hash: SHA-256 of its file.
        num_clips: Clips that went into the result; 0 when it failed.
        code: Why it failed, one of `tsp_core.schemas.QUARANTINE_CODES`; None when it did not.
        reason: The same for people.
        limits: Key of the decoder's limits, where they decided that it failed.
    """

    video: str
    content_hash: str
    num_clips: int
    code: str | None = None
    reason: str | None = None
    limits: str | None = None


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where the result of a video is."""

    uri: str
    row_group: int
    entry: Entry


def read_index(uri: str, schema: str) -> list[Located]:
    """What a shard holds; nothing when it is not there, or, with a warning, when it is damaged.

    Raises:
        ArtifactError: It holds another table than `schema`, or a version that is unknown.
    """

    def read(file: pq.ParquetFile) -> list[Entry]:
        schemas.check_schema(file, uri, schema)
        try:
            text = (file.metadata.metadata or {})[_INDEX_KEY.encode()]
            return [Entry.model_validate(item) for item in json.loads(text)]
        except (KeyError, ValueError, TypeError) as error:
            raise DamagedError(f"{uri}: no readable index ({type(error).__name__})") from None

    try:
        entries = read_parquet(uri, read, in_parts=True)
    except ObjectNotFoundError:
        return []
    except DamagedError as error:
        _logger.warning("a damaged shard is left out and its videos are computed again: %s", error)
        return []
    return [
        Located(uri=uri, row_group=row_group, entry=entry)
        for row_group, entry in enumerate(entries)
    ]


def read_located(located: Iterable[Located]) -> Iterator[pa.Table]:
    """Read the rows of one video after the other; one video's rows are in memory at a time."""
    with _OpenShard() as shard:
        for item in located:
            yield shard.read(item)


class _OpenShard:
    """The shard that was read last, kept open for the next video in it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._uri: str | None = None

    def __enter__(self) -> _OpenShard:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, item: Located) -> pa.Table:
        """Read one video's rows; after a failure the shard is opened anew."""

        def work() -> pa.Table:
            try:
                if self._uri != item.uri:
                    self._open(item.uri)
                with noticing_damage(item.uri):
                    return self._file.read_row_group(item.row_group)
            except BaseException:
                self._uri = None
                raise

        return read_again(lambda: faults.attempt(item.uri, "read", work))

    def _open(self, uri: str) -> None:
        self._stack.close()
        self._file = open_parquet(self._stack.enter_context(storage.opened(uri)), uri)
        self._uri = uri


class ShardFile:
    """Writes a shard aside, one row group per video, and uploads it when it is complete."""

    def __init__(self, uri: str, schema: TableSchema) -> None:
        self._uri, self._schema = uri, schema.with_metadata()
        self._entries: list[Entry] = []

    def __enter__(self) -> ShardFile:
        with ExitStack() as stack:  # which closes what is open, should the disk be full
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tsp-shard-"))
            self._path = Path(folder) / "shard.parquet"
            self._file = SealedWriter(self._path, self._schema)
            stack.callback(self._file.close)
            self._stack = stack.pop_all()
        return self

    def add(self, entry: Entry, table: pa.Table) -> None:
        """Add one video's rows."""
        self._file.write_table(table, row_group_size=max(table.num_rows, 1))
        self._entries.append(entry)

    def __exit__(self, error: type[BaseException] | None, *rest: object) -> None:
        with self._stack:
            if error is None:
                index = [entry.model_dump(mode="json") for entry in self._entries]
                self._file.add_key_value_metadata({_INDEX_KEY: json.dumps(index)})
                self._file.close()
                storage.upload(self._path, self._uri)

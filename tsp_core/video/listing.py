"""Which videos there are: folders, globs, lists of URIs and list files, on any store.

A listing says for every video its name, its URI and a token that changes with the file, at the
cost of one listing call per folder; no file is opened.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tsp_core import storage
from tsp_core.config import IngestConfig
from tsp_core.credentials import FIX, embedded_credentials
from tsp_core.errors import ConfigError, ObjectNotFoundError, StorageError, VideoError
from tsp_core.video.files import missing_reason, validate_video_name
from tsp_core.video.folders import (
    bare_path,
    files_below,
    is_broken_link,
    is_hidden,
    path_below,
    token_of,
)

_LIST_ENDINGS = (".csv", ".parquet")
_MAGIC = re.compile(r"[*?\[]")
_LOOKUPS = 16  # listed files that are looked up at a time; object stores answer slowly


@dataclass(frozen=True, kw_only=True)
class Source:
    """One video to ingest.

    Attributes:
        name: Unique name.
        uri: Where it is.
        token: Changes when the file changes.
        sha256: Content hash that a list promises.
        code: Why it is in quarantine without having been opened; else None.
        reason: The same for people.
    """

    name: str
    uri: str
    token: str
    sha256: str | None = None
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A video before names are settled.

    Attributes:
        folder: The folder or prefix that was listed; None for a file that was named itself.
    """

    uri: str
    token: str | None = None
    folder: str | None = None
    name: str | None = None
    sha256: str | None = None


def list_sources(section: IngestConfig) -> list[Source]:
    """List the configured videos, sorted by name, each name once.

    Of several files with one name the first by URI has it, the others are quarantined, and so are
    listed files that are not there, links that lead nowhere and names that no file can have. What
    is hidden below a folder, and what systems put there for themselves, is passed over.

    Raises:
        ConfigError: Nothing is configured or found, what is named is not there, or a list file is
            wrong.
    """
    if not section.videos:
        raise ConfigError(
            "ingest.videos: not set; give a folder, a glob, a list of URIs, or a .csv or .parquet "
            "list with the column 'uri'"
        )
    if isinstance(section.videos, str) and section.videos.lower().endswith(_LIST_ENDINGS):
        entries = _looked_up(_from_list_file(section.videos))
    else:
        given = [section.videos] if isinstance(section.videos, str) else section.videos
        entries = _looked_up(
            [entry for uri in given for entry in _from_uri(uri, section.extensions)]
        )
        _refuse_absent(entries)
    if not entries:
        raise ConfigError(
            f"ingest.videos: {_shown(section.videos)}: no videos found; looked for files that end "
            f"in {', '.join(section.extensions)} (ingest.extensions)"
        )
    return _settle_names(entries, section.names)


def _from_uri(uri: str, extensions: Sequence[str]) -> list[_Entry]:
    """Files below a folder, matches of a glob, or one file."""
    if storage.is_folder(uri):
        found, base = files_below(uri), uri
    elif _MAGIC.search(uri) and not storage.exists(uri):
        found, base = storage.glob_objects(uri), _MAGIC.split(uri)[0].rpartition("/")[0]
    else:
        return [_Entry(uri=uri)]
    endings = tuple(f".{ending.lower().lstrip('.')}" for ending in extensions)
    return [
        _Entry(uri=item.uri, token=token_of(item), folder=base.rstrip("/"))
        for item in found
        if item.uri.lower().endswith(endings) and not is_hidden(path_below(item.uri, base))
    ]


def _from_list_file(uri: str) -> list[_Entry]:
    """Rows of a list; relative URIs are taken from the list's folder."""
    rows = _parquet_rows(uri) if uri.lower().endswith(".parquet") else _csv_rows(uri)
    folder = uri.rpartition("/")[0]
    return [_listed(row, f"ingest.videos: {uri}: row {number}", folder) for number, row in rows]


def _listed(row: Mapping[str, Any], place: str, folder: str) -> _Entry:
    uri, name, sha256 = (str(row.get(key) or "").strip() for key in ("uri", "video", "sha256"))
    if not uri:
        raise ConfigError(f"{place}: the column 'uri' is empty; give a path or URI or drop the row")
    if what := embedded_credentials(uri):
        raise ConfigError(f"{place}: {storage.redact(uri)!r} carries {what}; {FIX}")
    if sha256 and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ConfigError(
            f"{place}: sha256 {sha256!r} is not a SHA-256; give 64 hexadecimal digits or nothing"
        )
    return _Entry(
        uri=storage.absolute(uri, base=folder), name=name or None, sha256=sha256.lower() or None
    )


def _csv_rows(uri: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        _check_columns(uri, reader.fieldnames or ())
        yield from enumerate(reader, start=1)
    except (UnicodeDecodeError, csv.Error, StorageError) as error:
        raise ConfigError(f"ingest.videos: {uri}: not a readable CSV list: {error}") from None


def _parquet_rows(uri: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with storage.opened(uri) as file:
            parquet = pq.ParquetFile(file)
            names = parquet.schema_arrow.names
            _check_columns(uri, names)
            known = [name for name in ("uri", "video", "sha256") if name in names]
            rows = parquet.read(columns=known).to_pylist()
    except (pa.ArrowInvalid, StorageError) as error:
        raise ConfigError(f"ingest.videos: {uri}: not a readable Parquet list: {error}") from None
    yield from enumerate(rows, start=1)


def _check_columns(uri: str, names: Iterable[str]) -> None:
    if "uri" not in names:
        raise ConfigError(
            f"ingest.videos: {uri}: no column 'uri' (found: {', '.join(names) or 'none'}); "
            "name the column of paths or URIs 'uri'"
        )


def _looked_up(entries: Sequence[_Entry]) -> list[_Entry]:
    """Give each entry a token; those that do not exist keep None."""

    def look_up(entry: _Entry) -> _Entry:
        """Ask the store about one entry."""
        if entry.token is not None or is_broken_link(entry.uri):
            return entry
        try:
            found = storage.info(entry.uri)
        except ObjectNotFoundError:
            return entry
        return replace(entry, uri=found.uri, token=token_of(found))

    with ThreadPoolExecutor(_LOOKUPS) as pool:
        return list(pool.map(look_up, entries))


def _refuse_absent(entries: Sequence[_Entry]) -> None:
    """What the configuration names must be there: a path that is misspelt is no broken video."""
    for entry in entries:
        if entry.token is None and not is_broken_link(entry.uri):
            raise ConfigError(
                f"ingest.videos: {storage.redact(entry.uri)!r} does not exist; "
                f"{_correction(entry.uri)} What a list file (.csv with the column 'uri') names "
                "may be missing, and is quarantined then"
            )


def _correction(uri: str) -> str:
    if storage.is_local(uri) and (similar := storage.similar_path(storage.local_path(uri))):
        return f"did you mean {str(similar)!r}?"
    return "correct the path."


def _settle_names(entries: Sequence[_Entry], names: Literal["stem", "path"]) -> list[Source]:
    """Name the entries and let the first by URI have a name that several want."""
    unique = {(entry.uri, entry.name or ""): entry for entry in entries}
    ordered = [unique[key] for key in sorted(unique)]
    shared = _shared_folder([entry.uri for entry in ordered if entry.folder is None])
    sources: dict[str, Source] = {}
    files: dict[str, str] = {}
    numbers: dict[str, int] = {}  # the last number that was tried for each name
    for entry in ordered:
        below = path_below(entry.uri, shared if entry.folder is None else entry.folder)
        source = _source(entry, entry.name or _name(below, names), below)
        if source.name in sources:
            source = _duplicate(source, below, files[source.name], sources, numbers)
        sources[source.name] = source
        files[source.name] = below
    return [sources[name] for name in sorted(sources)]


def _source(entry: _Entry, name: str, below: str) -> Source:
    """Judge what can be told without opening the file."""
    code = reason = None
    if entry.token is None:
        code, reason = "missing", _printable(missing_reason(entry.uri, below))
    try:
        validate_video_name(name)
        validate_video_name(entry.uri.rpartition("/")[2])
        entry.uri.encode("utf-8")
    except VideoError as error:
        code, reason = error.code, error.reason
    except UnicodeEncodeError:
        code, reason = "bad_name", f"{_printable(below)!r} lies in a folder that is not Unicode"
    return Source(
        name=_printable(name),
        uri=_printable(entry.uri),
        token=entry.token or "",
        sha256=entry.sha256,
        code=code,
        reason=reason,
    )


def _duplicate(
    source: Source,
    file: str,
    first: str,
    taken: Mapping[str, Source],
    numbers: dict[str, int],
) -> Source:
    number = numbers.get(source.name, 1) + 1
    while f"{source.name} (duplicate {number})" in taken:
        number += 1
    numbers[source.name] = number
    reason = (
        f"{file!r} and {first!r} give one video name, {source.name!r}; rename one, list them with "
        "a column 'video', or set ingest.names to 'path'"
    )
    name = f"{source.name} (duplicate {number})"
    return replace(source, name=name, code="duplicate_name", reason=reason)


def _name(below: str, names: Literal["stem", "path"]) -> str:
    stem = posixpath.splitext(below)[0]
    return stem.replace("/", "__") if names == "path" else posixpath.basename(stem)


def _shared_folder(uris: Sequence[str]) -> str:
    return posixpath.commonpath([posixpath.dirname(bare_path(uri)) for uri in uris]) if uris else ""


def _printable(text: str) -> str:
    """Text that can be stored: bytes of a file name that are not Unicode are replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _shown(videos: str | tuple[str, ...]) -> str:
    given = (videos,) if isinstance(videos, str) else videos
    shown = ", ".join(repr(storage.redact(uri)) for uri in given[:3])
    return shown + (f" and {len(given) - 3} more" if len(given) > 3 else "")

"""Which video files are meant: files, folders and glob patterns, as ingest lists them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tsp_core import storage
from tsp_core.config import IngestConfig
from tsp_core.errors import ConfigError, VideoError
from tsp_core.features.manifest import Quarantined
from tsp_core.video.files import file_name, validate_video_name
from tsp_core.video.listing import list_sources

_ENDINGS = IngestConfig().extensions
_OF_THE_WEB = ("http://", "https://")
_MAGIC = "*?["


@dataclass(frozen=True, kw_only=True)
class Given:
    """A video file that is asked for.

    Attributes:
        uri: Path or URI, as it was given where that was possible.
        name: The video's name: that of the file, without the ending.
        refused: Why nothing can be called by this name.
    """

    uri: str
    name: str
    refused: Quarantined | None = None

    @property
    def shown(self) -> str:
        """Path or URI for people: without credentials, printable."""
        return storage.redact(self.uri).encode("utf-8", "replace").decode("utf-8")


def given_videos(uris: Iterable[str]) -> list[Given]:
    """Name the files meant, each once; what is in a folder or matches a pattern sorted by path.

    A file that is named itself is taken whatever its ending is and whether it is there or not.

    Args:
        uris: Files, folders (with all below them) and glob patterns, on any store.

    Raises:
        ConfigError: None is given, or a folder or pattern has no video.
        StorageError: A store cannot list a folder.
        StorageUnavailableError: A store does not answer.
    """
    found: dict[tuple[str, str], Given] = {}
    for uri in uris:
        for video in _listed(uri) if _is_many(uri) else [_single(uri)]:
            found.setdefault((video.name, _identity(video.uri)), video)
    if not found:
        raise ConfigError("features: videos: none given; name files, folders or glob patterns")
    return list(found.values())


def video_name(uri: str) -> str:
    """A video's name: that of its file, without the ending."""
    return posixpath.splitext(file_name(uri))[0]


def short_names(videos: Iterable[Given]) -> dict[str, str]:
    """The end of each path, by URI: with a folder, and more where others end in the same."""
    waiting = {video.uri: _parts(video) for video in videos}
    short: dict[str, str] = {}
    length = 2
    while waiting:
        ends: dict[str, list[str]] = {}
        for uri, parts in waiting.items():
            ends.setdefault("/".join(parts[-length:]), []).append(uri)
        for end, those in ends.items():
            if len({tuple(waiting[uri]) for uri in those}) == 1:
                short |= dict.fromkeys(those, end)
        waiting = {uri: parts for uri, parts in waiting.items() if uri not in short}
        length += 1
    return short


def _parts(video: Given) -> list[str]:
    return storage.absolute(video.shown).rstrip("/").split("/")


def _is_many(uri: str) -> bool:
    """Whether a folder or a pattern is meant; a store is only asked where the name may be one."""
    if uri.endswith("/") and not uri.startswith(_OF_THE_WEB):
        return True
    has_magic = any(character in uri for character in _MAGIC)
    if storage.is_local(uri):
        place = _local(uri)
        is_folder = os.path.isdir(place)  # noqa: PTH112 - says no where there is no permission
        return is_folder or (has_magic and not os.path.lexists(place))
    if uri.startswith(_OF_THE_WEB) or (not has_magic and uri.lower().endswith(_dotted())):
        return False
    return storage.is_folder(uri) or (has_magic and not storage.exists(uri))


def _listed(uri: str) -> Iterator[Given]:
    is_local = storage.is_local(uri)
    try:
        sources = list_sources(IngestConfig(videos=(_local(uri) if is_local else uri,)))
    except ConfigError:  # it is empty, or not there
        is_absent = uri.endswith("/") and not storage.exists(uri)
        what = "does not exist, or holds nothing" if is_absent else "no videos found"
        raise ConfigError(
            f"features: videos: {storage.redact(uri)!r}: {what}; looked for files that end in "
            f"{', '.join(_ENDINGS)}; name files of other endings one by one"
        ) from None
    is_relative = is_local and "://" not in uri and not uri.startswith(("/", "~"))
    for source in sorted(sources, key=lambda source: source.uri):
        place = os.path.relpath(source.uri) if is_relative else source.uri
        if source.code == "bad_name":
            why = Quarantined(code=source.code, reason=source.reason or "")
            yield Given(uri=place, name=video_name(place), refused=why)
        else:
            yield _single(place)


def _single(uri: str) -> Given:
    name = video_name(uri)
    try:
        validate_video_name(name)
    except VideoError as error:
        refused = Quarantined(code=error.code, reason=error.reason)
        return Given(uri=uri, name=name, refused=refused)
    return Given(uri=uri, name=name)


def _identity(uri: str) -> str:
    """The same for two ways of writing one path."""
    return os.path.realpath(_local(uri)) if storage.is_local(uri) else uri


def _local(uri: str) -> str:
    return os.path.normpath(storage.local_path(storage.absolute(uri)))


def _dotted() -> tuple[str, ...]:
    return tuple(f".{ending}" for ending in _ENDINGS)

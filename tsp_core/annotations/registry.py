"""The annotation formats by name, and how a configuration's annotations are read."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tsp_core import artifacts, extensions, storage
from tsp_core.annotations import activitynet, plain_csv, thumos14, tsp_csv
from tsp_core.annotations.places import KEY, check_there, other_format
from tsp_core.annotations.records import AnnotatedVideo, Reader, refuse, show
from tsp_core.errors import AnnotationError, ConfigError, StorageError


@dataclass(frozen=True, kw_only=True)
class Format:
    """An annotation format.

    Attributes:
        read: Its reader.
        files: Lists the files of a folder, for formats whose sources are folders and where the
            files' names tell something.
        has_background: Its files state the background, which is then not cut between actions.
    """

    read: Reader
    files: Callable[[str], list[str]] | None = None
    has_background: bool = False


_formats: dict[str, Format] = {
    "activitynet": Format(read=activitynet.read),
    "thumos14": Format(read=thumos14.read, files=thumos14.class_files),
    "csv": Format(read=plain_csv.read),
    "tsp-csv": Format(read=tsp_csv.read, has_background=True),
}

FORMATS: Mapping[str, Format] = MappingProxyType(_formats)
"""Every format by its name; `tsp_core.extensions.ANNOTATION_FORMATS` holds the same names."""


def register_format(name: str, format: Format) -> None:
    """Add an annotation format; called by an extension when it is imported.

    Raises:
        ConfigError: The name is taken.
    """
    extensions.ANNOTATION_FORMATS.add(name, getattr(format.read, "__module__", name))
    _formats[name] = format


def find_format(name: str) -> Format:
    """Look a format up.

    Raises:
        ConfigError: No such format.
    """
    try:
        return _formats[extensions.ANNOTATION_FORMATS.known(name)]
    except ValueError as error:
        raise ConfigError(f"format: {error}") from None


def read_annotations(
    annotations: str | Mapping[str, str], format_name: str, *, key: str = KEY
) -> list[AnnotatedVideo]:
    """Read all annotations of a dataset, each video once.

    Args:
        annotations: A file or folder, or {subset: file or folder}.
        format_name: A key of `FORMATS`.
        key: What names the annotations, for the message where they are not there.

    Raises:
        AnnotationError: A file is not there or wrong, or two files name one video.
        ConfigError: Unknown format.
    """
    find_format(format_name)
    check_there(annotations, key=key)
    if isinstance(annotations, str):
        return _read(annotations, None, format_name)
    videos: dict[str, AnnotatedVideo] = {}
    for subset, uri in sorted(annotations.items()):
        for video in _read(uri, subset, format_name):
            first = videos.setdefault(video.name, video)
            if first is not video:
                raise refuse(
                    video.file,
                    "",
                    f"video {show(video.name)} of the subset {show(subset)} is in the subset "
                    f"{show(first.subset)} too ({storage.redact(first.file)}); keep one",
                )
    return list(videos.values())


def _read(uri: str, subset: str | None, format_name: str) -> list[AnnotatedVideo]:
    try:
        return find_format(format_name).read(uri, subset)
    except AnnotationError as error:
        if hint := other_format(uri, format_name):
            raise AnnotationError(f"{error}{hint}") from None
        raise


def content_digest(annotations: str | Mapping[str, str], format_name: str) -> str:
    """Hash what the annotation files hold, wherever they are, as 16 hexadecimal digits.

    Raises:
        AnnotationError: A file is not there or cannot be read.
        ConfigError: Unknown format.
    """
    files = find_format(format_name).files
    check_there(annotations)
    sources = {"": annotations} if isinstance(annotations, str) else annotations

    def digest(uri: str) -> str | dict[str, str]:
        if files is None:
            return _sha256(uri)
        return {posixpath.basename(file): _sha256(file) for file in files(uri)}

    return artifacts.fingerprint_of({subset: digest(uri) for subset, uri in sources.items()})


def _sha256(uri: str) -> str:
    try:
        return hashlib.sha256(storage.read_bytes(uri)).hexdigest()
    except StorageError as error:
        raise AnnotationError(f"cannot read the annotations: {error}") from None

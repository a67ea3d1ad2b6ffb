"""Whether the annotations are where the configuration says, and of the format that it says."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path

from tsp_core import storage
from tsp_core.annotations.records import show
from tsp_core.errors import AnnotationError, StorageError

KEY = "annotate.annotations"
_MOST_NAMES = 5
_FORMATS_OF_ENDINGS = {".csv": ("csv", "tsp-csv"), ".json": ("activitynet",)}
_OF_FILES = ("activitynet", "csv", "tsp-csv")
_BUILTIN = (*_OF_FILES, "thumos14")


def check_there(annotations: str | Mapping[str, str], *, key: str = KEY) -> None:
    """Refuse annotations that are not there, before a reader fails for want of them.

    Args:
        annotations: A file or folder, or {subset: file or folder}.
        key: What names them: the key of the configuration, or an option of the command line.

    Raises:
        AnnotationError: Naming the key, the path, and a file beside it that may be meant.
        StorageUnavailableError: The store does not answer.
    """
    for place, uri in _sources(annotations, key).items():
        try:
            if storage.exists(uri):
                continue
        except StorageError:
            continue  # the reader says what the store says
        raise AnnotationError(
            f"{place}: {storage.redact(uri)!r}: no such file or folder; {_advice(uri)}"
        )


def other_format(uri: str, format_name: str) -> str:
    """Tell that a file or folder looks like another format than the one it is read as, or ''."""
    ending = posixpath.splitext(uri.rstrip("/"))[1].lower()
    usual = _FORMATS_OF_ENDINGS.get(ending)
    if format_name in _OF_FILES and storage.is_folder(uri):
        return f"; {format_name!r} (annotate.format, --format) is read from a file: name it"
    if usual is None or format_name not in _BUILTIN or format_name in usual:
        return ""
    return (
        f"; it is read as {format_name!r} (annotate.format, --format), and its name ends in "
        f"{ending}: set that to {' or '.join(map(repr, usual))}, or name another file"
    )


def _sources(annotations: str | Mapping[str, str], key: str) -> dict[str, str]:
    if isinstance(annotations, str):
        return {key: annotations}
    return {f"{key}, subset {show(subset)}": uri for subset, uri in annotations.items()}


def _advice(uri: str) -> str:
    if not storage.is_local(uri):  # stores are not listed for a hint
        return "correct the path"
    path = storage.local_path(uri)
    if not path.parent.exists():
        return f"nor is there the folder {str(path.parent)!r}; correct the path"
    if similar := storage.similar_path(path):
        return f"did you mean {str(similar)!r}?"
    likely = [name for name in _names_in(path.parent) if _looks_annotated(name)]
    if not likely:
        return "correct the path"
    more = ", ..." if len(likely) > _MOST_NAMES else ""
    return f"correct the path; beside it are {', '.join(likely[:_MOST_NAMES])}{more}"


def _looks_annotated(name: str) -> bool:
    return name.lower().endswith(tuple(_FORMATS_OF_ENDINGS))


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []

"""Finds annotation files and tells their format, for `tsp init`."""

from __future__ import annotations

import glob
import posixpath
import re
from collections.abc import Sequence

from tsp_core import storage
from tsp_core.annotations import thumos14
from tsp_core.annotations.csv_rows import header_names
from tsp_core.annotations.records import refuse
from tsp_core.errors import ConfigError

_REGION_COLUMN = "temporal-region-label"
_ENDINGS = (".json", ".csv")
_GLOB_SIGN = re.compile(r"[*?\[]")
_A_FILE_PER_SUBSET = "--annotations training=FILE --annotations validation=FILE"


def detect_format(uri: str) -> str:
    """Tell the format of an annotation file or folder by its kind and, for CSV, by its header.

    Whether the contents are right is for the format's reader to say.

    Returns:
        A key of `tsp_core.annotations.registry.FORMATS`.

    Raises:
        AnnotationError: It cannot be read, or is of no known kind.
    """
    ending = posixpath.splitext(uri.rstrip("/"))[1].lower()
    if ending == ".json":
        return "activitynet"
    if ending == ".csv":
        return "tsp-csv" if _REGION_COLUMN in header_names(uri) else "csv"
    if storage.is_folder(uri):
        thumos14.class_files(uri)
        return "thumos14"
    raise refuse(
        uri,
        "",
        "cannot tell its format; known are ActivityNet's .json, a .csv of segments (plain, or the "
        "released TSP ground truth), and a folder of THUMOS14's CLASS_val.txt files",
    )


def find_annotations(folder: str, *, below: tuple[str, ...] = ()) -> list[str]:
    """List what may be annotations directly inside a folder; nothing deeper is looked at.

    The folder may be someone's home: it and the folders in it are listed, not what is below those.

    Args:
        folder: A folder or URI prefix.
        below: Names of folders inside it that hold other things, such as the videos.

    Returns:
        URIs of .json and .csv files, and of folders with THUMOS14 class files, sorted. Hidden
        files are passed over: copying from a Mac leaves a `._NAME` for every file.
    """
    prefix = folder.rstrip("/") + "/"
    names = _names(f"{glob.escape(prefix)}*")
    files = {name for name in names if name.lower().endswith(_ENDINGS)}
    class_files = _names(f"{glob.escape(prefix)}*/*_*.txt", depth=2)
    folders = {
        posixpath.dirname(name)
        for name in class_files
        if thumos14.is_class_file(posixpath.basename(name))
    }
    return sorted(prefix + name for name in files | folders.difference(below))


def _names(pattern: str, *, depth: int = 1) -> list[str]:
    """The last parts of the paths that match, without those in which one is hidden."""
    found = (item.uri.split("/")[-depth:] for item in storage.glob_objects(pattern))
    return ["/".join(parts) for parts in found if not any(part.startswith(".") for part in parts)]


def given_annotations(annotations: Sequence[str]) -> str | dict[str, str]:
    """The annotations that options of the command line name: a path, or {subset: path}.

    Args:
        annotations: One path, or a "SUBSET=PATH" for each subset; relative to the working folder.

    Raises:
        ConfigError: It is neither.
    """
    if len(annotations) == 1 and _is_path(annotations[0]):
        return storage.absolute(annotations[0])
    given = " ".join(f"--annotations {item}" for item in annotations)
    pairs = [item.partition("=") for item in annotations]
    if not all(subset and "/" not in subset and uri for subset, _, uri in pairs):
        raise ConfigError(
            f"{given}: give one path, or several as SUBSET=PATH ({_A_FILE_PER_SUBSET})"
        )
    found = {subset: storage.absolute(uri) for subset, _, uri in pairs}
    if len(found) != len(pairs):
        raise ConfigError(f"{given}: give each subset once")
    return found


def _is_path(item: str) -> bool:
    """Tell a path from SUBSET=PATH: paths have "=" too, as in `date=2024/labels.csv`."""
    subset, equals, _ = item.partition("=")
    if not equals or "/" in subset:
        return True
    return "://" not in item and storage.exists(storage.absolute(item))


def only_annotations(videos: str) -> str:
    """The one file or folder of annotations beside the videos, or else above them.

    Args:
        videos: A folder, glob or list file; absolute.

    Raises:
        ConfigError: There is none, or there are several.
    """
    folder = videos_folder(videos)
    above, name = posixpath.split(folder.rstrip("/"))
    # A list of the videos is a .csv too.
    found = [uri for uri in find_annotations(folder) if uri != videos]
    found = found or find_annotations(above, below=(name,))
    if len(found) == 1:
        return found[0]
    where = f"in {storage.redact(folder)} or above it"
    if not found:
        raise ConfigError(
            f"--annotations: no .json, .csv or THUMOS14 folder {where}; give its path (README, "
            "'Your own dataset', shows the simplest format)"
        )
    shown = ", ".join(posixpath.basename(uri) for uri in found)
    raise ConfigError(
        f"--annotations: several files may be meant {where}: {shown}; give one "
        f"(--annotations PATH), or one for each subset ({_A_FILE_PER_SUBSET})"
    )


def videos_folder(videos: str) -> str:
    """The folder that the videos are in: itself, that of a list, or that before a glob's signs."""
    if storage.is_folder(videos):
        return videos
    return posixpath.dirname(_GLOB_SIGN.split(videos)[0])

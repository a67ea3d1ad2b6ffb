"""Finds annotation files and tells their format, for `tsp init`."""

from __future__ import annotations

import posixpath

from tsp_core import storage
from tsp_core.annotations import thumos14
from tsp_core.annotations.csv_rows import header_names
from tsp_core.annotations.records import refuse
from tsp_core.errors import AnnotationError

_REGION_COLUMN = "temporal-region-label"
_ENDINGS = (".json", ".csv")


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
    """List what may be annotations directly inside a folder.

    Args:
        folder: A folder or URI prefix.
        below: Names of folders inside it that hold other things, such as the videos.

    Returns:
        URIs of .json and .csv files, and of folders with THUMOS14 class files, sorted.
    """
    prefix = folder.rstrip("/") + "/"
    names = {item.uri.removeprefix(prefix) for item in storage.list_objects(folder)}
    files = {name for name in names if "/" not in name and name.lower().endswith(_ENDINGS)}
    folders = {name.split("/")[0] for name in names if "/" in name and name.endswith(".txt")}
    thumos = {name for name in folders.difference(below) if _is_thumos14(prefix + name)}
    return sorted(prefix + name for name in files | thumos)


def _is_thumos14(uri: str) -> bool:
    try:
        return bool(thumos14.class_files(uri))
    except AnnotationError:
        return False

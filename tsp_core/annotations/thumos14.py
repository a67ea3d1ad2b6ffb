"""THUMOS14 text folders: one file `CLASS_SPLIT.txt` per class, lines `video start end`.

`Ambiguous_SPLIT.txt` holds spans that are hard to tell; they are read as kind "ambiguous", never
as an action. A video may be in several class files (Diving and CliffDiving) and keeps all rows.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from tsp_core import storage
from tsp_core.annotations.records import (
    AnnotatedSegment,
    AnnotatedVideo,
    group_by_video,
    number_cell,
    read_text,
    refuse,
    show,
)
from tsp_core.errors import AnnotationError, StorageError

SUBSETS = {
    "val": "validation",
    "validation": "validation",
    "test": "test",
    "train": "training",
    "training": "training",
}
"""Subset by the ending of the file names; a mapping in the configuration overrides it."""

_CLASS_FILE = re.compile(r"(?P<label>[^.].*)_(?P<split>[A-Za-z0-9]+)\.txt")  # not hidden
_AMBIGUOUS = "Ambiguous"


def is_class_file(name: str) -> bool:
    """Tell whether a file's name is that of a class file whose ending tells the subset."""
    match = _CLASS_FILE.fullmatch(name)
    return match is not None and match["split"] in SUBSETS


def class_files(uri: str) -> list[str]:
    """List the class files of a folder (also when they are one level further down), sorted.

    Where some files have an ending that tells a subset, files such as `class_list.txt` beside them
    are passed over; where none has, a mapping has to tell it.

    Raises:
        AnnotationError: No folder, no class files, or class files in several folders.
    """
    try:
        objects = storage.list_objects(uri)
    except StorageError as error:
        raise AnnotationError(f"cannot read the annotations: {error}") from None
    named = [item.uri for item in objects if _CLASS_FILE.fullmatch(posixpath.basename(item.uri))]
    files = [file for file in named if is_class_file(posixpath.basename(file))] or named
    folders = sorted({posixpath.dirname(file) for file in files})
    if not files:
        raise refuse(uri, "", "no class files CLASS_val.txt or CLASS_test.txt in this folder")
    if len(folders) > 1:
        raise refuse(
            uri,
            "",
            f"class files in several folders ({', '.join(map(storage.redact, folders))}); give "
            "them as {subset: folder}",
        )
    return files


def read(uri: str, subset: str | None) -> list[AnnotatedVideo]:
    """Read a folder of class files; rows keep the order of the sorted files and their lines.

    Args:
        uri: The folder.
        subset: Default: by the ending of the file names, see `SUBSETS`.

    Raises:
        AnnotationError: See `class_files`; a wrong line; a video in several subsets.
    """
    files = class_files(uri)
    splits = sorted({_name_parts(file)[1] for file in files})
    if subset is not None and len(splits) > 1:
        raise refuse(
            uri, "", f"given as subset {show(subset)} but holds several: {', '.join(splits)}"
        )
    return group_by_video(row for file in files for row in _rows(file, subset))


def _name_parts(file: str) -> tuple[str, str]:
    match = _CLASS_FILE.fullmatch(posixpath.basename(file))
    assert match is not None, file
    return match["label"], match["split"]


def _subset_of_split(file: str, split: str) -> str:
    if split not in SUBSETS:
        raise refuse(
            file,
            "file name",
            f"the ending _{split} tells no subset (known: {', '.join(SUBSETS)}); give "
            "annotations as {subset: folder}",
        )
    return SUBSETS[split]


def _rows(file: str, subset: str | None) -> Iterator[tuple[str, str, AnnotatedSegment]]:
    label, split = _name_parts(file)
    file_subset = subset or _subset_of_split(file, split)
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        place, cells = f"line {number}", line.split()
        if not cells:
            continue
        if len(cells) != 3:
            raise refuse(file, place, f"{show(line)}: expected three fields: video start end")
        segment = AnnotatedSegment(
            kind="ambiguous" if label == _AMBIGUOUS else "action",
            label=None if label == _AMBIGUOUS else label,
            start_seconds=number_cell(cells[1], "start", file, place),
            end_seconds=number_cell(cells[2], "end", file, place),
            file=file,
            place=place,
        )
        yield cells[0], file_subset, segment

"""ActivityNet JSON: `{"database": {ID: {"subset": ..., "annotations": [...]}}}`.

An annotation is `{"label": ..., "segment": [start, end]}` in seconds; blanks around labels and
subsets are dropped, as in CSV files. Other keys (`taxonomy`, `version`, `duration`, `url`, a
dataset's own) are not looked at; durations are measured.
"""

from __future__ import annotations

import json
from typing import Any

from tsp_core.annotations.records import (
    AnnotatedSegment,
    AnnotatedVideo,
    number_field,
    read_text,
    refuse,
    show,
    text_field,
)


def read(uri: str, subset: str | None) -> list[AnnotatedVideo]:
    """Read ActivityNet JSON; videos keep the order of the file.

    Args:
        uri: The JSON file.
        subset: The subset of videos that name none; one that names another is an error.

    Raises:
        AnnotationError: Not JSON, another shape, a key given twice.
    """
    document = _parse(uri)
    database = document.get("database") if isinstance(document, dict) else None
    if not isinstance(database, dict):
        raise refuse(
            uri,
            "top level",
            f'expected {{"database": {{VIDEO: {{...}}}}}}, got {show(document)} without it',
        )
    if not database:
        raise refuse(uri, "database", "holds no videos; is it the right file?")
    return [_video(uri, subset, name, entry) for name, entry in database.items()]


class _RepeatedKeyError(ValueError):
    pass


def _parse(uri: str) -> Any:
    try:
        return json.loads(read_text(uri), object_pairs_hook=_object)
    except _RepeatedKeyError as error:
        raise refuse(uri, str(error), "the key appears twice; keep one") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise refuse(uri, place, f"not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # digits or nesting without end
        raise refuse(uri, "", f"not usable JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing a key given twice (JSON readers silently keep the last)."""
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(show(key))
            seen.add(key)
    return values


def _video(uri: str, subset: str | None, name: str, entry: Any) -> AnnotatedVideo:
    name = text_field(name, "video name", uri, "database")
    place = f"database[{show(name)}]"
    if not isinstance(entry, dict):
        raise refuse(uri, place, f"expected an object with subset and annotations: {show(entry)}")
    own = entry.get("subset")
    if own is not None:
        own = text_field(own, "subset", uri, place).strip()
    if own is not None and subset is not None and own != subset:
        raise refuse(
            uri,
            f"{place}.subset",
            f"{show(own)}, but the configuration gives this file as {show(subset)}; give the path "
            "alone to use the file's own subsets",
        )
    annotations = entry.get("annotations")
    if annotations is None:
        annotations = []  # test subsets are published without
    if not isinstance(annotations, list):
        raise refuse(uri, f"{place}.annotations", f"expected a list: {show(annotations)}")
    segments = tuple(
        _segment(uri, f"{place}.annotations[{index}]", item)
        for index, item in enumerate(annotations)
    )
    return AnnotatedVideo(name=name, subset=own or subset, segments=segments, file=uri)


def _segment(uri: str, place: str, item: Any) -> AnnotatedSegment:
    if not isinstance(item, dict):
        raise refuse(uri, place, f"expected an object with label and segment: {show(item)}")
    times = item.get("segment")
    if not isinstance(times, list) or len(times) != 2:
        raise refuse(uri, f"{place}.segment", f"expected [start, end] in seconds: {show(times)}")
    return AnnotatedSegment(
        kind="action",
        label=text_field(item.get("label"), "label", uri, place).strip(),
        start_seconds=number_field(times[0], "start", uri, f"{place}.segment"),
        end_seconds=number_field(times[1], "end", uri, f"{place}.segment"),
        file=uri,
        place=place,
    )

"""What the readers return, and what all of them use to read text and refuse it.

Times are seconds from the first frame of the video, exactly as annotated; readers judge the shape
of a file, `tsp_core.annotations.segments` judges whether its times and labels make sense.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from tsp_core import storage
from tsp_core.errors import AnnotationError, StorageError

Kind = Literal["action", "background", "ambiguous"]

_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedSegment:
    """One row of an annotation file.

    Attributes:
        kind: "ambiguous" spans are neither action nor background.
        label: The class of an action, else None.
        start_seconds: As annotated, so possibly not finite or beyond the video.
        end_seconds: As annotated; the segment is [start, end).
        file: URI of the file it is from.
        place: Where in the file: "line 12", "database['ID'].annotations[0]".
    """

    kind: Kind
    label: str | None
    start_seconds: float
    end_seconds: float
    file: str
    place: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedVideo:
    """One video's annotations in the order of the file; there may be none.

    Attributes:
        name: As annotated; the file's own name may have a prefix in front.
        subset: None when neither the file nor the caller says.
        file: URI of the file that first names the video.
    """

    name: str
    subset: str | None
    segments: tuple[AnnotatedSegment, ...]
    file: str


class Reader(Protocol):
    """Reads one file (or folder) of a format.

    `subset` is what the configuration says of the file, None when it says nothing.

    Raises:
        AnnotationError: Naming the file, the place, the value and the fix.
    """

    def __call__(self, uri: str, subset: str | None) -> list[AnnotatedVideo]: ...


def group_by_video(
    rows: Iterable[tuple[str, str | None, AnnotatedSegment]],
) -> list[AnnotatedVideo]:
    """Gather rows of (video name, subset, segment) that may lie anywhere in the files.

    Raises:
        AnnotationError: A video is in several subsets.
    """
    first: dict[str, tuple[str | None, AnnotatedSegment]] = {}
    segments_of: dict[str, list[AnnotatedSegment]] = {}
    for name, subset, segment in rows:
        known, earlier = first.setdefault(name, (subset, segment))
        if known != subset:
            raise _in_two_subsets(name, (known, earlier), (subset, segment))
        segments_of.setdefault(name, []).append(segment)
    return [
        AnnotatedVideo(
            name=name, subset=first[name][0], segments=tuple(found), file=first[name][1].file
        )
        for name, found in segments_of.items()
    ]


def _in_two_subsets(
    name: str,
    earlier: tuple[str | None, AnnotatedSegment],
    later: tuple[str | None, AnnotatedSegment],
) -> AnnotationError:
    empty, named = (earlier, later) if earlier[0] is None else (later, earlier)
    if empty[0] is None:
        return refuse(
            empty[1].file,
            empty[1].place,
            f"video {show(name)}: the column 'subset' is empty, but {show(named[0])} in "
            f"{named[1].place}; fill it in",
        )
    return refuse(
        later[1].file,
        later[1].place,
        f"video {show(name)} is in the subset {show(later[0])} here and in {show(earlier[0])} "
        f"before ({storage.redact(earlier[1].file)}); keep one",
    )


def show(value: object) -> str:
    """Write a value for a message, shortened."""
    text = repr(value) if not isinstance(value, (dict, list)) else f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def refuse(uri: str, place: str, message: str) -> AnnotationError:
    """Build the error that names the file and the place in it."""
    where = f"{storage.redact(uri)}: {place}" if place else storage.redact(uri)
    return AnnotationError(f"{where}: {message}")


def read_text(uri: str) -> str:
    """Read a UTF-8 text file (a byte-order mark is dropped).

    Raises:
        AnnotationError: It cannot be read, is empty, or is not UTF-8.
    """
    try:
        data = storage.read_bytes(uri)
    except StorageError as error:
        raise AnnotationError(f"cannot read the file: {error}") from None
    if not data.strip():
        raise refuse(uri, "", "the file is empty; fetch it again or remove it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(uri, f"byte {error.start}", "not UTF-8 text; save it as UTF-8") from None


def text_field(value: object, what: str, uri: str, place: str) -> str:
    """Return a name or label, which must be a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise refuse(uri, place, f"{what} {show(value)}: expected a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refuse(uri, place, f"{what} {show(value)}: half a surrogate pair; fix it") from None
    return value


def number_field(value: object, what: str, uri: str, place: str) -> float:
    """Return a JSON number of seconds; NaN and infinities pass, to be judged later."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    except OverflowError:
        pass
    raise refuse(uri, place, f"{what} {show(value)}: expected a number of seconds")


def number_cell(cell: str, what: str, uri: str, place: str) -> float:
    """Return a number of seconds written as text; see `number_field`."""
    try:
        if "_" not in cell:  # Python's digit groups are no numbers elsewhere
            return float(cell)
    except ValueError:
        pass
    hint = " with a decimal point" if "," in cell else ""
    raise refuse(uri, place, f"{what} {show(cell)}: expected a number of seconds{hint}")

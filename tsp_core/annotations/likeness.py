"""Names that a person would take for the same: of classes, and of videos."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from tsp_core.annotations.records import show

_FILLING = re.compile(r"[\s_-]+")


def alike(labels: Iterable[str]) -> list[list[str]]:
    """Group the labels that differ in case, blanks, '_' and '-' alone; each counts by itself.

    Returns:
        Groups of two and more, sorted.
    """
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        plain = unicodedata.normalize("NFKC", label).casefold()
        groups.setdefault(_FILLING.sub("", plain), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def alike_line(groups: Sequence[Sequence[str]], what: str = "classes") -> str:
    """Say which classes, or what else, are alike, in one line for people."""
    first = " and ".join(map(show, groups[0]))
    more = f" (and {len(groups) - 1} more such)" if len(groups) > 1 else ""
    return (
        f"the {what} {first}{more} differ in case, blanks or hyphens alone, and count as "
        "different ones; write them in the same way if they are one"
    )


def how_names_differ(annotated: Sequence[str], known: Iterable[str], *, prefix: str = "v_") -> str:
    """Tell what has to be done to annotated names for them to be names of videos.

    Args:
        annotated: Names that no video has.
        known: The names of the videos.
        prefix: What known names may have in front.

    Returns:
        What most of them need, for people; '' where nothing that is known to be needed helps.
    """
    names = set(known)
    lower = {name.casefold() for name in names}
    folded = {name: name.casefold() for name in annotated}
    ways: dict[str, Callable[[str], bool]] = {
        "without their ending {0}": lambda name: _stem(name) in names,
        "without the folders in front": lambda name: posixpath.basename(name) in names,
        "without the folders in front and the ending {0}": (
            lambda name: _stem(posixpath.basename(name)) in names
        ),
        f"without the prefix {prefix!r}": (
            lambda name: name.startswith(prefix) and name.removeprefix(prefix) in names
        ),
        "in another case": lambda name: folded[name] in lower,
    }
    fitting = {way: [name for name in annotated if fits(name)] for way, fits in ways.items()}
    way, found = max(fitting.items(), key=lambda item: len(item[1]))
    if not found:
        return ""
    text = way.format(repr(posixpath.splitext(found[0])[1]))
    return f"{len(found)} of them are names of videos when they are written {text}"


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]

"""Which known video an annotated name means."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tsp_core.annotations.likeness import how_names_differ
from tsp_core.annotations.records import AnnotatedVideo, refuse, show

_PREFIXES = ("", "v_")  # tried in this order when none is given


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownVideo:
    """A video that there is.

    Attributes:
        name: Its file name without ending.
        duration_seconds: Measured extent; None when it is quarantined.
        reason: Why it is quarantined.
    """

    name: str
    duration_seconds: float | None
    reason: str = ""


def match_videos(
    annotated: Sequence[AnnotatedVideo], known: Mapping[str, KnownVideo], prefix: str | None
) -> dict[str, KnownVideo]:
    """Find the known video of each annotated name; unknown ones are left out.

    A name that is not found as written is looked for in another Unicode form: file names from a
    Mac hold accents as signs of their own, and look the same.

    Args:
        annotated: The videos, each name once.
        known: By name.
        prefix: What known names have in front of annotated ones; None tries "" then "v_".

    Raises:
        AnnotationError: Two annotated names mean one video, one may mean two, or none of them any.
    """
    prefixes = _PREFIXES if prefix is None else (prefix,)
    matched: dict[str, KnownVideo] = {}
    owners: dict[str, str] = {}
    by_form = _by_form(known)
    for video in annotated:
        names = [f"{before}{video.name}" for before in prefixes]
        name = next((name for name in names if name in known), None)
        name = name or _in_another_form(video, names, by_form)
        if name is None:
            continue
        found = known[name]
        owner = owners.setdefault(found.name, video.name)
        if owner != video.name:
            raise refuse(
                video.file,
                "",
                f"the names {show(owner)} and {show(video.name)} both mean the video "
                f"{show(found.name)}; remove one or set annotate.video_prefix",
            )
        matched[video.name] = found
    if annotated and not matched:
        raise _nothing_matches(annotated, known, prefixes)
    return matched


def _by_form(known: Iterable[str]) -> dict[str, list[str]]:
    """The known names by their composed Unicode form (NFC)."""
    names: dict[str, list[str]] = {}
    for name in known:
        names.setdefault(unicodedata.normalize("NFC", name), []).append(name)
    return names


def _in_another_form(
    video: AnnotatedVideo, names: Iterable[str], by_form: Mapping[str, list[str]]
) -> str | None:
    forms = (unicodedata.normalize("NFC", name) for name in names)
    found = next((by_form[form] for form in forms if form in by_form), [])
    if len(found) > 1:
        raise refuse(
            video.file,
            "",
            f"the name {show(video.name)} may mean {' or '.join(map(ascii, found))}, which differ "
            "in their Unicode form alone; rename one of the files",
        )
    return found[0] if found else None


def _nothing_matches(
    annotated: Sequence[AnnotatedVideo], known: Mapping[str, KnownVideo], prefixes: Sequence[str]
) -> Exception:
    names = [video.name for video in annotated]
    differ = how_names_differ(names, known)
    theirs = f"such as {show(min(known))}" if known else "there are none"
    return refuse(
        annotated[0].file,
        "",
        f"none of the {len(annotated)} annotated videos (such as {show(annotated[0].name)}) is "
        f"among the {len(known)} known ones ({theirs}), tried with the prefixes "
        f"{', '.join(map(repr, prefixes))}; names are file names without their ending: "
        + (f"{differ}; " if differ else "")
        + "see annotate.video_prefix and ingest.names",
    )

"""Which known video an annotated name means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

    Args:
        annotated: The videos, each name once.
        known: By name.
        prefix: What known names have in front of annotated ones; None tries "" then "v_".

    Raises:
        AnnotationError: Two annotated names mean one video, or none of them any.
    """
    prefixes = _PREFIXES if prefix is None else (prefix,)
    matched: dict[str, KnownVideo] = {}
    owners: dict[str, str] = {}
    for video in annotated:
        names = (f"{before}{video.name}" for before in prefixes)
        found = next((known[name] for name in names if name in known), None)
        if found is None:
            continue
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


def _nothing_matches(
    annotated: Sequence[AnnotatedVideo], known: Mapping[str, KnownVideo], prefixes: Sequence[str]
) -> Exception:
    theirs = f"such as {show(min(known))}" if known else "there are none"
    return refuse(
        annotated[0].file,
        "",
        f"none of the {len(annotated)} annotated videos (such as {show(annotated[0].name)}) is "
        f"among the {len(known)} known ones ({theirs}), tried with the prefixes "
        f"{', '.join(map(repr, prefixes))}; names are file names without their ending: see "
        "annotate.video_prefix and ingest.names",
    )

"""Background segments: the gaps between the actions of a video.

By default they are the true complement of the actions. The released ground truth opens the gap
after a segment at the end of the segment that starts last, not of the one that ends last, so that
where an action lies inside a longer one, part of the longer one counts as background; the official
mode reproduces that row for row.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

OFFICIAL_CLIP_SECONDS = 16 / 15
"""Extent of the clip (16 frames at 15 fps) in which the shortest background is measured."""

_TOLERANCE_SECONDS = 1e-9  # a gap of the least length counts, whatever its float rounding


def background_segments(
    actions: Sequence[tuple[float, float]],
    duration_seconds: float,
    *,
    min_seconds: float,
    official: bool = False,
) -> list[tuple[float, float]]:
    """Cut the background of one video.

    A gap that a segment beyond the video's end closes is left as wide as the annotations say, as
    in the released ground truth; the clip index clips all segments to the video.

    Args:
        actions: [start, end) of each in seconds, in the order of the annotations, which settles
            ties in the official mode. Segments may overlap, lie beyond the video or be empty; an
            empty one parts the gap around it.
        duration_seconds: Extent of the video.
        min_seconds: Shorter gaps are no background.
        official: Open gaps as the released ground truth does.

    Returns:
        [start, end) of each background segment in temporal order; nothing without actions.
    """
    if not actions:
        return []
    gaps = []
    opens = 0.0
    for start, end in sorted(actions, key=itemgetter(0)):
        gaps.append((opens, start))
        opens = max(end, 0.0) if official else max(end, opens)
    gaps.append((opens, duration_seconds))
    least = min_seconds - _TOLERANCE_SECONDS
    return [(start, end) for start, end in gaps if end > start and end - start >= least]

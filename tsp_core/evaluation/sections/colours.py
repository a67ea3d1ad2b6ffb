"""The colours of action classes where videos are shown."""

from __future__ import annotations

from collections import Counter

from tsp_core.evaluation.charts.svg import NUM_COLOURS, colour
from tsp_core.evaluation.stories import Stories

OTHERS = "none"
"""Class of the colour that the classes without one of their own share."""


def class_colours(stories: Stories, num_classes: int) -> dict[int, str]:
    """Choose colours for the classes that are seen, so that none stands for two of them.

    Of more classes than there are colours, those with the most annotated actions, then with the
    most detections, have one of their own; the others share `OTHERS`.

    Returns:
        Class of the colour by index of the action class, in the order of the indices.
    """
    annotated: Counter[int] = Counter()
    detected: Counter[int] = Counter()
    for story in stories.videos:
        annotated.update(story.actions.label_indices.tolist())
        detected.update(story.detections.label_indices.tolist())
    seen = sorted({*annotated, *detected})
    if num_classes <= NUM_COLOURS:
        return {index: colour(index) for index in seen}
    first = sorted(seen, key=lambda index: (-annotated[index], -detected[index], index))
    own = {index: colour(rank) for rank, index in enumerate(sorted(first[:NUM_COLOURS]))}
    return {index: own.get(index, OTHERS) for index in seen}

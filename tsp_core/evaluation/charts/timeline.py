"""The timeline of a video: its frames, what is annotated, what was detected, its actionness.

Places are in per cent of the width, so that one drawing suits a phone and a wide screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from tsp_core.evaluation.blocks import Chart
from tsp_core.evaluation.charts.axes import fitting_ticks, plain_tick
from tsp_core.evaluation.charts.svg import data_uri, element, number, text
from tsp_core.evaluation.charts.thinning import thinned_rows
from tsp_core.evaluation.detection.instances import Detections, Instances

_FRAMES, _BAR, _GAP, _CURVE = 58.0, 18.0, 4.0, 44.0
_CAPTION = 16.0
_NARROW = 280.0  # pixels of the time axis on a phone
_SLICES = 500  # of the curve: two pixels each on a wide page


def timeline_chart(
    *,
    video: str,
    duration_seconds: float,
    actions: Instances,
    detections: Detections,
    is_right: NDArray[np.bool_],
    actionness: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    thumbnails: Sequence[bytes],
    classes: Sequence[str],
    colours: Mapping[int, str],
    file: str,
    title: str,
) -> Chart:
    """Draw a timeline.

    Args:
        video: Its name.
        duration_seconds: Its length.
        actions: Annotated.
        detections: That are worth showing.
        is_right: bool [D], whether each of them matches an action.
        actionness: Times in seconds and values from 0 to 1, both float [N]; None for none.
        thumbnails: Frames as JPEG, from evenly spaced times; may be none.
        classes: Names in index order.
        colours: Of the classes that are seen, by index.
        file: Name of the picture's file.
        title: Heading.
    """
    parts: list[Markup] = []
    top = 0.0
    if thumbnails:
        parts += _strip(thumbnails)
        top = _FRAMES + 8
    for caption, segments, right in (
        ("annotated", actions, None),
        ("detected", detections, is_right),
    ):
        parts.append(text(caption if len(segments) else f"{caption}: none", 0, top + 11))
        lanes = _lanes(segments)
        for row, lane in enumerate(lanes):
            y = top + _CAPTION + lane * (_BAR + _GAP)
            solid = right is None or bool(right[row])
            parts.append(_bar(segments, row, y, duration_seconds, classes, colours, solid))
        top += _CAPTION + (max(lanes, default=-1) + 1) * (_BAR + _GAP) + 4
    if actionness is not None:
        parts.append(text("actionness", 0, top + 11))
        parts.append(_curve(*actionness, top + _CAPTION, duration_seconds))
        top += _CAPTION + _CURVE
    parts += _axis(top, duration_seconds)
    return Chart(
        file=file,
        title=title,
        description=_described(video, actions, is_right),
        body=Markup("").join(parts),
        width=900,
        height=round(top + 24),
        fluid=True,
    )


def _described(video: str, actions: Instances, is_right: NDArray[np.bool_]) -> str:
    return (
        f"Timeline of {video}: {len(actions)} annotated actions, {len(is_right)} detections shown, "
        f"of which {int(is_right.sum())} match one (filled; the others are outlined)."
    )


def _strip(thumbnails: Sequence[bytes]) -> list[Markup]:
    share = 100 / len(thumbnails)
    return [
        element(
            "svg",
            element(
                "image",
                href=data_uri(jpeg, "jpeg"),
                width="100%",
                height=_FRAMES,
                preserveAspectRatio="xMidYMid slice",
            ),
            x=_percent(index * share),
            y=0,
            width=_percent(share * 0.985),
            height=_FRAMES,
        )
        for index, jpeg in enumerate(thumbnails)
    ]


def _lanes(segments: Instances) -> list[int]:
    """The lane of each segment, so that those that overlap are under one another."""
    ends: list[float] = []
    lanes = [0] * len(segments)
    for row in np.lexsort((segments.t_end, segments.t_start)):
        start, end = float(segments.t_start[row]), float(segments.t_end[row])
        free = next((lane for lane, until in enumerate(ends) if until <= start + 1e-6), len(ends))
        if free == len(ends):
            ends.append(end)
        ends[free] = end
        lanes[row] = free
    return lanes


def _bar(
    segments: Instances,
    row: int,
    y: float,
    duration_seconds: float,
    classes: Sequence[str],
    colours: Mapping[int, str],
    solid: bool,
) -> Markup:
    """A bar with its class as far as it fits: the inner drawing clips what sticks out."""
    index = int(segments.label_indices[row])
    start = float(np.clip(segments.t_start[row] / duration_seconds, 0, 1)) * 100
    end = float(np.clip(segments.t_end[row] / duration_seconds, 0, 1)) * 100
    label = classes[index]
    times = f"{segments.t_start[row]:.1f}\N{EN DASH}{segments.t_end[row]:.1f} s"
    hint = f"{label}, {times}"
    if isinstance(segments, Detections):
        hint += f", score {segments.scores[row]:.2f}"
    kind = "fill" if solid else "hollow"
    box: dict[str, str | float] = {"x": 1, "y": 1, "width": "100%", "height": _BAR - 2, "rx": 3}
    return element(
        "svg",
        element("title", hint),
        element("rect", class_=f"{kind} {colours[index]}", style="width:calc(100% - 2px)", **box),
        text(label, 6, _BAR - 5, class_="on-fill" if solid else "soft"),
        x=_percent(start),
        y=y,
        width=_percent(max(end - start, 0.3)),
        height=_BAR,
    )


def _curve(
    times: NDArray[np.float64], values: NDArray[np.float64], y: float, duration_seconds: float
) -> Markup:
    """An area; its own drawing is stretched to the width, and has the points that are seen."""
    rows = thinned_rows(times, values, x_range=(0.0, duration_seconds), slices=_SLICES)
    points = [
        f"{number(1000 * time / duration_seconds)} {number(100 * (1 - value))}"
        for time, value in zip(times[rows], values[rows], strict=True)
    ]
    first, last = points[0].split()[0], points[-1].split()[0]
    outline = "M" + "L".join(points)
    return element(
        "svg",
        element("path", d=f"{outline}L{last} 100L{first} 100Z", class_="area s0"),
        element("path", d=outline, class_="line s0", vector_effect="non-scaling-stroke"),
        x=0,
        y=y,
        width="100%",
        height=_CURVE,
        viewBox="0 0 1000 100",
        preserveAspectRatio="none",
    )


def _axis(top: float, duration_seconds: float) -> list[Markup]:
    parts = [element("line", x1="0%", x2="100%", y1=top, y2=top, class_="axis")]
    for value in fitting_ticks(0.0, duration_seconds, pixels=_NARROW, written=plain_tick, count=6):
        place = 100 * value / duration_seconds
        anchor = "start" if place < 2 else "end" if place > 97 else "middle"
        at = _percent(place)
        parts.append(element("line", x1=at, x2=at, y1=top, y2=top + 4, class_="axis"))
        unit = " s" if value == 0 else ""
        parts.append(text(plain_tick(value) + unit, at, top + 17, text_anchor=anchor))
    return parts


def _percent(value: float) -> str:
    return f"{number(value)}%"

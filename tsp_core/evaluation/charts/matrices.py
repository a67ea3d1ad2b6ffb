"""Charts of matrices: confusion of classes, and the similarity of a video's rows over time."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from tsp_core.evaluation.blocks import Chart
from tsp_core.evaluation.charts.axes import WIDTH, fitting_ticks, plain_tick
from tsp_core.evaluation.charts.svg import (
    CHARACTER_WIDTH,
    data_uri,
    element,
    line,
    shortened_names,
    text,
)
from tsp_core.evaluation.detection.instances import Instances
from tsp_core.evaluation.localizers.sequences import FeatureSequence

_MAX_NAMED, _MAX_NUMBERED, _MAX_CHARACTERS = 40, 12, 18
_MAX_ROWS = 220  # of a similarity matrix: more are not told apart at its size on the page
_WARM, _COLD = (0xD9, 0x5F, 0x0E), (0x2B, 0x7B, 0xBA)


def confusion_chart(
    confusion: NDArray[np.int64], labels: Sequence[str], *, file: str, title: str
) -> Chart:
    """Draw a confusion matrix [C, C]: rows are true classes, shaded by their share."""
    count = len(labels)
    named = count <= _MAX_NAMED
    names = shortened_names(labels, _MAX_CHARACTERS)
    longest = CHARACTER_WIDTH * max(len(name) for name in names) if named else 0.0
    left, top = 24 + longest, 8.0
    cell = min(46.0, max((WIDTH - left - 8) / count, 11.0 if named else 3.0))
    size = cell * count
    below = (longest * 0.72 + 16) if named else 8.0
    turned = f"translate(12 {top + size / 2:.1f}) rotate(-90)"
    parts = [
        text("true", 0, 0, class_="label", text_anchor="middle", transform=turned),
        text(
            "predicted",
            left + size / 2,
            top + size + below + 12,
            class_="label",
            text_anchor="middle",
        ),
        element("rect", x=left, y=top, width=size, height=size, class_="frame"),
    ]
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    for (row, column), clips in np.ndenumerate(confusion):
        if clips:
            parts.append(_cell(left + column * cell, top + row * cell, cell, shares[row, column]))
        if count <= _MAX_NUMBERED:
            class_ = "on-fill" if shares[row, column] > 0.5 else "soft"
            at = (left + (column + 0.5) * cell, top + (row + 0.5) * cell + 4)
            parts.append(text(f"{clips:,}", *at, text_anchor="middle", class_=class_))
    for index, name in enumerate(names if named else ()):
        middle = (index + 0.5) * cell
        parts.append(text(name, left - 6, top + middle + 4, text_anchor="end"))
        turned = f"translate({left + middle + 4:.1f} {top + size + 12:.1f}) rotate(-45)"
        parts.append(text(name, 0, 0, text_anchor="end", transform=turned))
    return Chart(
        file=file,
        title=title,
        description="Rows are true classes, columns predicted ones; the shade is the share of the "
        "true class.",
        body=Markup("").join(parts),
        width=round(max(left + size + 8, 200)),
        height=round(top + size + below + 18),
    )


def similarity_chart(
    sequence: FeatureSequence,
    actions: Instances | None,
    classes: Sequence[str],
    *,
    colours: Mapping[int, str],
    file: str,
) -> Chart:
    """Draw the cosines of all pairs of rows of a video, with the annotated actions beside them.

    Args:
        sequence: Features; they are standardised over the video.
        actions: Annotated actions of this video; None for none.
        classes: Names in index order.
        colours: Of the classes of the actions, by index.
        file: Name of the picture's file.
    """
    seconds = sequence.duration_seconds
    ticks = fitting_ticks(0.0, seconds, pixels=WIDTH - 60.0, written=plain_tick)
    left = max(34.0, 12 + CHARACTER_WIDTH * max(len(plain_tick(tick)) for tick in ticks))
    top, size = 14.0, WIDTH - left - 12.0
    scale = size / seconds
    image = data_uri(_similarity_png(sequence), "png")
    parts = [
        element("rect", x=left, y=top, width=size, height=size, class_="frame"),
        element(
            "image", href=image, x=left, y=top, width=size, height=size, preserveAspectRatio="none"
        ),
    ]
    for value in ticks:
        at, written = value * scale, plain_tick(value)
        parts.append(text(written, left + at, top + size + 15, text_anchor="middle"))
        parts.append(text(written, left - 5, top + at + 4, text_anchor="end"))
        parts.append(line(left + at, top + size, left + at, top + size + 4, "axis"))
    label = text("time (s)", left + size / 2, top + size + 32, text_anchor="middle", class_="label")
    parts.append(label)
    parts += _action_marks(actions, classes, colours, left, top, size, scale)
    return Chart(
        file=file,
        title=sequence.video,
        description="Similarity of all pairs of rows: orange alike, blue unlike; squares are "
        "annotated actions.",
        body=Markup("").join(parts),
        width=WIDTH,
        height=round(top + size + 40),
    )


def _action_marks(
    actions: Instances | None,
    classes: Sequence[str],
    colours: Mapping[int, str],
    left: float,
    top: float,
    size: float,
    scale: float,
) -> list[Markup]:
    """A bar above the matrix, and a square along its diagonal, for each action."""
    parts: list[Markup] = []
    for row in range(len(actions) if actions is not None else 0):
        assert actions is not None
        index = int(actions.label_indices[row])
        start = min(float(actions.t_start[row]) * scale, size)
        length = min(float(actions.t_end[row]) * scale, size) - start
        title = element("title", classes[index])
        place = {"x": left + start, "width": max(length, 0.5)}
        parts.append(
            element("rect", title, y=top - 9, height=6, class_=f"fill {colours[index]}", **place)
        )
        parts.append(
            element("rect", y=top + start, height=max(length, 0.5), class_="outline", **place)
        )
    return parts


def _cell(x: float, y: float, size: float, share: float) -> Markup:
    opacity = 0.06 + 0.94 * float(share)
    return element(
        "rect", x=x, y=y, width=size, height=size, class_="fill s0", fill_opacity=opacity
    )


def _similarity_png(sequence: FeatureSequence) -> bytes:
    """Cosines as a picture that lets the page through where they are 0."""
    rows = np.arange(0, len(sequence), -(-len(sequence) // _MAX_ROWS))
    edges = _edges(sequence.t_center[rows], sequence.duration_seconds)
    pixels = min(4 * len(rows), 2 * _MAX_ROWS)  # rows need not be evenly spaced in time
    times = (np.arange(pixels) + 0.5) / pixels * sequence.duration_seconds
    at = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(rows) - 1)
    values = _cosines(sequence.features[rows])[np.ix_(at, at)]
    steps = np.clip(np.round(values * 7), -7, 7).astype(np.int64) + 7  # few colours, small file
    image = Image.fromarray(steps.astype(np.uint8)).copy()
    palette = [channel for step in range(15) for channel in (_WARM if step > 7 else _COLD)]
    image.putpalette(palette)  # makes of grey values the indices of colours
    buffer = io.BytesIO()
    opacities = bytes(round(abs(step - 7) / 7 * 255) for step in range(15))
    image.save(buffer, format="PNG", transparency=opacities, optimize=True)
    return buffer.getvalue()


def _edges(t_center: NDArray[np.float64], duration_seconds: float) -> NDArray[np.float64]:
    """Borders between rows: midway between their times, [N + 1]."""
    between = (t_center[:-1] + t_center[1:]) / 2
    return np.concatenate([[0.0], between, [max(duration_seconds, float(t_center[-1]))]])


def _cosines(features: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = features.astype(np.float64)
    rows = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-6)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.asarray(rows @ rows.T)

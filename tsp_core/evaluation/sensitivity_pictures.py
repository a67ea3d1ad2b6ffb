"""Pictures of temporal sensitivity, as PNG with the same bytes for the same figures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from tsp_core.evaluation.detection.instances import Instances
from tsp_core.evaluation.localizers.sequences import ACTION, FeatureSequence
from tsp_core.evaluation.pictures import png_bytes
from tsp_core.evaluation.sensitivity import BoundarySimilarity, FeatureMap

_STYLE: Any = {"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}
_BACKGROUND = "#b8bec6"
_MAX_ROWS = 600  # of a self-similarity matrix; more are not told apart on a page
_MAX_NAMED_CLASSES = 12


def similarity_curve_png(similarity: BoundarySimilarity) -> bytes:
    """Draw the mean cosine within stretches and across boundaries over the distance in time."""
    with _style():
        figure = Figure(figsize=(5.5, 3.2), dpi=110, layout="constrained")
        axes = figure.subplots()
        lags = similarity.lags_seconds
        axes.plot(lags, similarity.within, marker="o", markersize=3, label="same stretch")
        axes.plot(lags, similarity.across, marker="o", markersize=3, label="across a boundary")
        axes.set_xlabel("distance in time [s]")
        axes.set_ylabel("mean cosine")
        axes.grid(color="#e5e5e5", linewidth=0.5)
        axes.legend(frameon=False)
        return png_bytes(figure)


def feature_map_png(feature_map: FeatureMap, classes: Sequence[str]) -> bytes:
    """Draw the map of rows, coloured by class, background in grey."""
    with _style():
        figure = Figure(figsize=(6.5, 4.2), dpi=110, layout="constrained")
        axes = figure.subplots()
        labels = feature_map.labels
        _scatter(axes, feature_map.points[labels.regions != ACTION], _BACKGROUND, "background")
        for index, name in enumerate(classes):
            own = feature_map.points[labels.label_indices == index]
            _scatter(axes, own, _colour(index), name if index < _MAX_NAMED_CLASSES else None)
        first, second = feature_map.explained
        axes.set_xlabel(f"component 1 ({first:.0%} of the variance)")
        axes.set_ylabel(f"component 2 ({second:.0%})")
        axes.legend(frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
        return png_bytes(figure)


def self_similarity_png(
    sequence: FeatureSequence, actions: Instances | None, classes: Sequence[str]
) -> bytes:
    """Draw the cosines of all pairs of rows of a video, with the annotated actions beside them.

    Args:
        sequence: Features; they are standardised over the video.
        actions: Annotated actions of this video; None for none.
        classes: Names in index order.
    """
    rows = np.arange(0, len(sequence), -(-len(sequence) // _MAX_ROWS))
    extent = (0.0, sequence.duration_seconds)
    with _style():
        figure = Figure(figsize=(5.6, 5.2), dpi=110, layout="constrained")
        axes = figure.subplots()
        edges = _edges(sequence.t_center[rows], sequence.duration_seconds)
        mesh = axes.pcolormesh(
            edges, edges, _cosines(sequence.features[rows]), cmap="RdBu_r", vmin=-1, vmax=1
        )
        axes.set(
            xlim=extent, ylim=extent[::-1], aspect="equal", xlabel="time [s]", ylabel="time [s]"
        )
        figure.colorbar(mesh, ax=axes, shrink=0.8, label="cosine")
        _draw_actions(axes, actions, classes)
        figure.suptitle(sequence.video, fontsize=10)
        return png_bytes(figure)


def _draw_actions(axes: Axes, actions: Instances | None, classes: Sequence[str]) -> None:
    """Draw a bar above the matrix, and a square along its diagonal, for each action."""
    above = axes.get_xaxis_transform()  # x in seconds, y in heights of the axes
    named: set[int] = set()
    for row in range(len(actions) if actions is not None else 0):
        assert actions is not None
        start, length = actions.t_start[row], actions.lengths_seconds[row]
        index = int(actions.label_indices[row])
        label = None if index in named else classes[index]
        named.add(index)
        bar = Rectangle((start, 1.01), length, 0.05, transform=above, clip_on=False, linewidth=0)
        bar.set(facecolor=_colour(index), label=label)
        axes.add_patch(bar)
        axes.add_patch(
            Rectangle((start, start), length, length, fill=False, edgecolor="black", linewidth=0.8)
        )
    if 0 < len(named) <= _MAX_NAMED_CLASSES:
        legend = {"frameon": False, "fontsize": 8, "handlelength": 1}
        axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.06), **legend)


def _edges(t_center: NDArray[np.float64], duration_seconds: float) -> NDArray[np.float64]:
    """Borders between rows: midway between their times, [N + 1]."""
    between = (t_center[:-1] + t_center[1:]) / 2
    return np.concatenate([[0.0], between, [max(duration_seconds, float(t_center[-1]))]])


def _cosines(features: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = features.astype(np.float64)
    rows = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-6)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.asarray(rows @ rows.T)


def _scatter(axes: Axes, points: NDArray[np.float64], colour: Any, label: str | None) -> None:
    axes.scatter(points[:, 0], points[:, 1], s=5, color=colour, label=label, linewidths=0)


def _colour(index: int) -> Any:
    return mpl.colormaps["tab20"](index % 20)


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield

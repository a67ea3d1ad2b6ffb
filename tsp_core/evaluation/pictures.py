"""Pictures of the report, as PNG with the same bytes for the same figures."""

from __future__ import annotations

import io
import warnings
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tsp_core.evaluation.heads import HeadScore

_MAX_NAMED_CLASSES = 40
_MAX_CHARACTERS = 24  # of a label
_MAX_NUMBERED_CLASSES = 12
_STYLE: Any = {"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}


def confusion_png(score: HeadScore, title: str) -> bytes:
    """Draw a head's confusion matrix, each row as shares of the clips of that class."""
    size = min(2.4 + 0.55 * len(score.labels), 9.0)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # a label in a script that the font lacks is drawn as boxes; the tables have it in full
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(size + 0.8, size), dpi=110, layout="constrained")
        axes = figure.subplots()
        _draw_confusion(axes, score)
        axes.set_title(title, fontsize=10)
        return png_bytes(figure)


def _draw_confusion(axes: Axes, score: HeadScore) -> None:
    totals = score.confusion.sum(axis=1, keepdims=True)
    shares = score.confusion / np.maximum(totals, 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    count = len(score.labels)
    if count <= _MAX_NAMED_CLASSES:
        names = [_shortened(label) for label in score.labels]
        axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), names)
    if count <= _MAX_NUMBERED_CLASSES:
        for (row, column), clips in np.ndenumerate(score.confusion):
            color = "white" if shares[row, column] > 0.5 else "#1c2733"
            axes.text(column, row, str(clips), ha="center", va="center", color=color)
    assert axes.figure is not None
    axes.figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")


def _shortened(label: str) -> str:
    label = " ".join(label.split())
    return label if len(label) <= _MAX_CHARACTERS else f"{label[: _MAX_CHARACTERS - 3]}..."


def png_bytes(figure: Figure) -> bytes:
    """Render a figure without dates or versions in the file."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

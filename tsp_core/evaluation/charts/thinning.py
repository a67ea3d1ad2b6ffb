"""Thins out lines of more points than a drawing shows, keeping every peak and dip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def thinned_rows(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    *,
    x_range: tuple[float, float],
    slices: int,
) -> NDArray[np.int64]:
    """Choose the points of a line that are worth drawing.

    Args:
        x: float64 [N], rising.
        y: float64 [N], finite.
        x_range: Values of x at both ends of the drawing.
        slices: Equal parts of the drawing, each about as wide as the line.

    Returns:
        int64 [M], rising: of each slice the rows of the least and the greatest y, and the first
        and the last row; all rows where they are no more than two per slice.
    """
    if len(x) <= 2 * slices:
        return np.arange(len(x), dtype=np.int64)
    low, high = x_range
    of_row = np.clip((x - low) / (high - low) * slices, 0, slices - 1).astype(np.int64)
    order = np.lexsort((y, of_row))
    least = np.flatnonzero(np.diff(of_row[order], prepend=-1))
    greatest = np.append(least[1:], len(x)) - 1
    return np.unique(np.concatenate([[0], order[least], order[greatest], [len(x) - 1]]))

"""The one loop over pixels that Python runs for every frame, compiled to machine code by Numba.

In whole-array steps of NumPy the same sums take three times as long: each step walks through more
memory than the processor's cache holds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = (
    "void(uint8[:, ::1], intp, intp[:, ::1], float32[::1], intp[:, ::1], float32[:, ::1], "
    "float32[::1], float32[::1], float32[:, ::1])"
)


@functools.cache
def bilinear_kernel() -> Callable[..., None]:
    """Return `_resize`, compiled; it releases the interpreter lock.

    The machine code is kept beside this file or in Numba's cache folder (NUMBA_CACHE_DIR), and
    made anew in each process, in half a second, where neither can be written to.
    """
    import numba  # only where frames are read: it takes a third of a second

    compiled: Any
    try:
        compiled = numba.njit(_SIGNATURE, nogil=True, cache=True)(_resize)
    except RuntimeError:  # no folder for the cache
        compiled = numba.njit(_SIGNATURE, nogil=True)(_resize)
    kernel: Callable[..., None] = compiled
    return kernel


def _resize(
    values: NDArray[np.uint8],
    first: int,
    rows: NDArray[np.intp],
    row_weights: NDArray[np.float32],
    columns: NDArray[np.intp],
    column_weights: NDArray[np.float32],
    shift: NDArray[np.float32],
    line: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Blend two rows of a picture into a line, and two places of the line into each value.

    Args:
        values: uint8 [H, W]; a pixel's colours are neighbours.
        first: Where a line starts in its rows.
        rows: Upper and lower row of each line, [2, h].
        row_weights: Weight of the lower row, [h].
        columns: Left and right place in the line of each value, [2, w].
        column_weights: Their weights, [2, w].
        shift: Subtracted from each value, [w].
        line: Room for a line, [W].
        out: float32 [h, w], written to.
    """
    for i in range(out.shape[0]):
        upper = values[rows[0, i]][first : first + line.shape[0]]
        lower = values[rows[1, i]][first : first + line.shape[0]]
        weight = row_weights[i]
        for j in range(line.shape[0]):
            above = np.float32(upper[j])
            line[j] = above + weight * (np.float32(lower[j]) - above)
        for j in range(out.shape[1]):
            left = line[columns[0, j]] * column_weights[0, j]
            right = line[columns[1, j]] * column_weights[1, j]
            out[i, j] = left + right - shift[j]

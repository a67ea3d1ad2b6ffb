"""The loops over pixels that run for every frame, compiled to machine code by Numba.

In whole-array steps the same sums take several times as long: each step walks through more memory
than the processor's cache holds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

PADDING = 4
"""Room that a line needs after its values, so that they can be read four at a time."""

_RESIZE = (
    "void(uint8[:, ::1], intp, intp[:, ::1], float32[::1], uintp[::1], float32[:, ::1], "
    "float32[::1], float32[::1], float32[:, ::1])"
)
_NORMALISE = "void(uint8[:, ::1], float32[::1], float32[::1], float32[:, ::1])"


@functools.cache
def bilinear_kernel() -> Callable[..., None]:
    """Return `_resize`, compiled; it releases the interpreter lock."""
    return _compiled(_resize, _RESIZE)


@functools.cache
def normalise_kernel() -> Callable[..., None]:
    """Return `_normalise`, compiled; it releases the interpreter lock."""
    return _compiled(_normalise, _NORMALISE)


def _compiled(loop: Callable[..., None], signature: str) -> Callable[..., None]:
    """Compile a loop.

    The machine code is kept beside this file or in Numba's cache folder (NUMBA_CACHE_DIR), and
    made anew in each process, in half a second, where neither can be written to.
    """
    import numba  # only where frames are read: it takes a third of a second

    compiled: Any
    settings: Any = numba.config
    # Sums of neighbours become one of vectors, which Numba by default does not let LLVM do.
    before, settings.SLP_VECTORIZE = settings.SLP_VECTORIZE, 1
    try:
        compiled = numba.njit(signature, nogil=True, cache=True)(loop)
    except RuntimeError:  # no folder for the cache
        compiled = numba.njit(signature, nogil=True)(loop)
    finally:
        settings.SLP_VECTORIZE = before
    kernel: Callable[..., None] = compiled
    return kernel


def _resize(
    values: NDArray[np.uint8],
    first: int,
    rows: NDArray[np.intp],
    row_weights: NDArray[np.float32],
    left: NDArray[np.uintp],
    weights: NDArray[np.float32],
    shift: NDArray[np.float32],
    line: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Blend two rows of a picture into a line, and two pixels of the line into each pixel.

    A pixel's three values are computed together with the first of the next pixel, which is then
    overwritten: vectors have four places. All are read before any is written, for LLVM does not
    know that `out` is apart from the rest; and indices are unsigned, since Numba would look for
    negative ones.

    Args:
        values: uint8 [H, 3 W]; a pixel's colours are neighbours.
        first: Where a line starts in its rows.
        rows: Upper and lower row of each line, [2, h].
        row_weights: Weight of the lower row, [h].
        left: Place in the line of the left one of each pixel's two, [w]; the right one follows.
        weights: Of the left and the right one, for each value, [2, 3 w].
        shift: Subtracted from each value, [3 w].
        line: Room for a line and `PADDING`.
        out: float32 [h, 3 w], written to.
    """
    one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)
    width = line.shape[0] - PADDING
    of_left, of_right = weights[0], weights[1]
    last = np.uintp(left.shape[0] - 1)

    def blended(place: np.uintp, k: np.uintp) -> np.float32:
        value: np.float32 = line[place] * of_left[k] + line[place + three] * of_right[k] - shift[k]
        return value

    for i in range(out.shape[0]):
        upper = values[rows[0, i]][first : first + width]
        lower = values[rows[1, i]][first : first + width]
        weight = row_weights[i]
        for j in range(width):
            above = np.float32(upper[j])
            line[j] = above + weight * (np.float32(lower[j]) - above)
        for c in range(3):  # at the picture's right edge both pixels are the last one
            line[width + c] = line[width - 3 + c]
        line[width + 3] = np.float32(0)
        target = out[i]
        for j in range(last):
            p, k = left[j], three * np.uintp(j)
            red, green = blended(p, k), blended(p + one, k + one)
            blue, following = blended(p + two, k + two), blended(p + three, k + three)
            target[k], target[k + one] = red, green
            target[k + two], target[k + three] = blue, following
        for c in range(three):
            target[three * last + c] = blended(left[last] + c, three * last + c)


def _normalise(
    values: NDArray[np.uint8],
    scale: NDArray[np.float32],
    shift: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Scale and shift by column: uint8 [H, W] to float32 [H, W]."""
    for i in range(values.shape[0]):
        source, target = values[i], out[i]
        for j in range(source.shape[0]):
            target[j] = np.float32(source[j]) * scale[j] - shift[j]

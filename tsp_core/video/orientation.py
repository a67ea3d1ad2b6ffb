"""How a picture has to be turned to be upright, as the display matrix of its file says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import cast

import numpy as np
from av.buffer import Buffer
from av.video.frame import VideoFrame
from numpy.typing import NDArray


def upright_degrees(frame: VideoFrame) -> int:
    """Counter-clockwise turn that makes a frame upright: -90, 0, 90 or 180 degrees.

    Where the matrix mirrors, the turn leaves the picture mirrored left to right: mirroring is not
    applied (docs/decisions/0011-colour-and-rotation.md), but nothing stands on its head. FFmpeg's
    own angle, which PyAV gives, is that of a matrix that does not mirror.
    """
    matrix = _display_matrix(frame)
    if matrix is None or np.linalg.det(matrix) >= 0:
        return 90 * _quarter_turns(frame.rotation)
    (a, b), (c, d) = matrix.tolist()  # x' = a x + c y, y' = b x + d y, with y pointing down
    # Mirroring what is shown once more, left to right, changes the sign of x' and leaves a turn.
    angle = -math.degrees(math.atan2(b / math.hypot(b, d), -a / math.hypot(a, c)))
    return 90 * _quarter_turns(angle)


def _display_matrix(frame: VideoFrame) -> NDArray[np.float64] | None:
    """Its four entries that turn and mirror; None where there is none to be read."""
    try:
        side_data = cast("Mapping[str, Buffer]", frame.side_data)
    except ValueError:  # there is other side data, of a kind that PyAV does not know
        return None
    entry = side_data.get("DISPLAYMATRIX")
    if entry is None:
        return None
    return np.frombuffer(bytes(entry), dtype=np.int32).reshape(3, 3)[:2, :2].astype(np.float64)


def _quarter_turns(degrees: float) -> int:
    """Nearest number of quarter turns, from -1 to 2; other angles are not what cameras write."""
    if not -360 <= degrees <= 360:  # FFmpeg's result for a matrix of zeros
        return 0
    return (round(Fraction(degrees) / 90) + 1) % 4 - 1

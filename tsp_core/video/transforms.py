"""From decoded pictures to the numbers that the encoder sees (paper, section 4.1).

The released code turns uint8 RGB into floats in [0, 1], resizes with bilinear interpolation
(`torch.nn.functional.interpolate`, align_corners=False, no antialiasing), normalises and crops.
`BilinearResize` computes the same numbers for the wanted window only: each output pixel needs two
rows and two columns of the picture, whose places and weights are computed once per video.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tsp_core.video.kernels import PADDING, bilinear_kernel, normalise_kernel

if TYPE_CHECKING:
    import torch

MEAN = (0.43216, 0.394666, 0.37645)
"""Mean of red, green and blue in Kinetics-400, for values in [0, 1]."""
STD = (0.22803, 0.22145, 0.216989)
"""Standard deviation of red, green and blue in Kinetics-400, for values in [0, 1]."""

_SCALE = (1 / (255 * np.array(STD, dtype=np.float64))).astype(np.float32)
_SHIFT = (np.array(MEAN, dtype=np.float64) / np.array(STD)).astype(np.float32)


def centre_crop_offsets(height: int, width: int, crop_size: int) -> tuple[int, int]:
    """Top and left of the central square, rounded (half to even) as the released code does."""
    return round((height - crop_size) / 2), round((width - crop_size) / 2)


def mirrored(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror a clip's frames left to right: uint8 [L, H, W, 3], contiguous."""
    import torch  # processes that only decode do without

    # In this layout torch mirrors vectors of bytes; NumPy copies three bytes at a time.
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2)
    flipped: NDArray[np.uint8] = planes.flip(3).permute(0, 2, 3, 1).numpy()
    return flipped


def normalise_clips(frames: torch.Tensor) -> torch.Tensor:
    """Normalise a batch of clips, on the device that they are on.

    Args:
        frames: uint8 [B, L, H, W, 3], cropped.

    Returns:
        float32 [B, 3, L, H, W]; in memory [B, L, H, W, 3] (channels last), as the frames are, so
        that nothing is moved about.
    """
    import torch  # processes that only decode do without

    height, width = frames.shape[2:4]
    if frames.device.type == "cpu":
        # NumPy asks for huge pages, torch for a page fault every 4 kB.
        clips = np.empty(frames.shape, dtype=np.float32)
        rows = frames.contiguous().numpy().reshape(-1, 3 * width)
        constants = np.tile(_SCALE, width), np.tile(_SHIFT, width)
        normalise_kernel()(rows, *constants, clips.reshape(rows.shape))
        return torch.from_numpy(clips).permute(0, 4, 1, 2, 3)

    def constant(values: NDArray[np.float32]) -> torch.Tensor:
        # As large as a frame: loops over three values at a time take seven times as long.
        return torch.from_numpy(np.tile(values, (height, width, 1))).to(frames.device)

    normalised = frames.to(torch.float32).mul_(constant(_SCALE)).sub_(constant(_SHIFT))
    return normalised.permute(0, 4, 1, 2, 3)


class BilinearResize:
    """Bilinear resizing of pictures of one size to a window of the resized picture.

    Equal to `interpolate(..., mode="bilinear", align_corners=False)` followed by a crop, to
    rounding (1e-6 on a scale of 0 to 1). Buffers are reused: one object serves one thread.

    Args:
        source: Height and width of the pictures in pixels.
        target: Height and width of the resized picture.
        window: Top, left, height and width of the part that is computed; all of it by default.
        normalise: Whether to give normalised values instead of levels from 0 to 255.
    """

    def __init__(
        self,
        *,
        source: tuple[int, int],
        target: tuple[int, int],
        window: tuple[int, int, int, int] | None = None,
        normalise: bool = False,
    ) -> None:
        top, left, height, width = window or (0, 0, *target)
        rows, row_weights = _taps(source[0], target[0], top, height)
        columns, column_weights = _taps(source[1], target[1], left, width)
        first, end = int(columns.min()), int(columns.max()) + 1
        scale, shift = (_SCALE, _SHIFT) if normalise else (np.ones_like(_SCALE), 0 * _SHIFT)
        weights = np.stack([1 - column_weights, column_weights])[..., None] * scale
        self._tables = (
            3 * first,
            rows,
            row_weights,
            (3 * (columns[0] - first)).astype(np.uintp),
            weights.reshape(2, -1),
            np.tile(shift, width),
            np.empty(3 * (end - first) + PADDING, dtype=np.float32),
        )
        self._kernel = bilinear_kernel()

    def __call__(self, picture: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """Resize one picture.

        Args:
            picture: uint8 [H, W, 3]; rows may be padded.
            out: float32 [h, w, 3], contiguous, to write to.
        """
        values = np.ascontiguousarray(picture).reshape(len(picture), -1)
        self._kernel(values, *self._tables, out.reshape(len(out), -1))


def rounded(resized: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Round a resized picture to bytes: float32 [h, w, 3] in [0, 255] to uint8 [h, w, 3]."""
    return (resized + np.float32(0.5)).astype(np.uint8)


def _taps(
    num_source: int, num_target: int, offset: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The two source positions, int64 [2, count], and the weight of the second, per output."""
    # As torch: the scale in float32, and one rounding after multiplying and subtracting.
    scale = np.float64(np.float32(num_source) / np.float32(num_target))
    position = ((np.arange(offset, offset + count) + 0.5) * scale - 0.5).astype(np.float32)
    position = np.maximum(position, np.float32(0))
    first = np.minimum(position.astype(np.int64), num_source - 1)
    second = np.minimum(first + 1, num_source - 1)
    return np.stack([first, second]), position - first.astype(np.float32)

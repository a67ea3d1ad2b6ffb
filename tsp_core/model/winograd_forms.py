"""How convolutions of three taps are computed with few products: matrices, and what suits.

Winograd's minimal filtering F(m, r), as in Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks" (2016), section 4. The matrices of four outputs are those of the points 0, 1, -1,
2, -1/2 and infinity, with which rounding errors stay small (Barabasz et al., "Error Analysis and
Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tsp_core.model.vector_code import lanes_here

Matrix = tuple[tuple[float, ...], ...]

_LEAST_CHANNELS = 32
_MOST_WEIGHTS = 1 << 18
"""Of a tap, times depth: beyond it sums of weights take much memory, for layers of few pixels."""
_LEAST_GAIN = 1.5
"""Ratio of products, below which the sums cost more than they save."""


@dataclass(frozen=True)
class Axis:
    """Minimal filtering F(m, r) along one axis: m outputs of r taps from m + r - 1 products.

    Outputs are A [(G g) * (B d)], for taps g and the m + r - 1 inputs d that they fall on.

    Attributes:
        of_outputs: A, [m, m + r - 1].
        of_taps: G, [m + r - 1, r].
        of_inputs: B, [m + r - 1, m + r - 1].
    """

    of_outputs: Matrix
    of_taps: Matrix
    of_inputs: Matrix

    @property
    def outputs(self) -> int:
        """The outputs of a tile, m."""
        return len(self.of_outputs)

    @property
    def taps(self) -> int:
        """The filter's taps, r."""
        return len(self.of_taps[0])

    @property
    def products(self) -> int:
        """The inputs of a tile, and the products, m + r - 1."""
        return len(self.of_inputs)


ONE_TAP = Axis(((1,),), ((1,),), ((1,),))
TWO_OUTPUTS = Axis(
    of_outputs=((1, 1, 1, 0), (0, 1, -1, 1)),
    of_taps=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    of_inputs=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1)),
)
FOUR_OUTPUTS = Axis(
    of_outputs=(
        (1, 1, 1, 1, 1, 0),
        (0, 1, -1, 2, -1 / 2, 0),
        (0, 1, 1, 4, 1 / 4, 0),
        (0, 1, -1, 8, -1 / 8, 1),
    ),
    of_taps=(
        (1, 0, 0),
        (1 / 6, 1 / 6, 1 / 6),
        (1 / 6, -1 / 6, 1 / 6),
        (1 / 30, 2 / 30, 4 / 30),
        (16 / 15, -8 / 15, 4 / 15),
        (0, 0, 1),
    ),
    of_inputs=(
        (1, 1.5, -2, -1.5, 1, 0),
        (0, 2, 5, 1, -2, 0),
        (0, 2, 1, -5, 2, 0),
        (0, -1, -2, 1, 2, 0),
        (0, -2, 1, 2, -1, 0),
        (0, 1, 1.5, -2, -1.5, 1),
    ),
)
_AXES = {(3, 3): (FOUR_OUTPUTS, TWO_OUTPUTS), (3, 1): (FOUR_OUTPUTS, ONE_TAP)}
"""Vertical and horizontal filter by taps."""


@dataclass(frozen=True)
class Form:
    """What a kernel is made for.

    Attributes:
        is_bf16: Whether activations and weights are bf16; sums are fp32 either way.
        lanes: fp32 values in a vector.
        rows: Tiles whose sums are kept in registers together.
        vectors: Vectors of output channels whose sums are kept in registers together: a panel.
        vertical: The filter along the picture's rows.
        horizontal: The filter along its columns.
        depth: Taps along time, summed directly: pictures that an output is made from.
        adds_shortcut: Whether something is added to the output, before a ReLU.
    """

    is_bf16: bool
    lanes: int
    rows: int
    vectors: int
    vertical: Axis
    horizontal: Axis
    depth: int = 1
    adds_shortcut: bool = False

    @property
    def panel(self) -> int:
        """Output channels that are computed together."""
        return self.lanes * self.vectors

    @property
    def value_bytes(self) -> int:
        """Bytes of an activation or a weight."""
        return 2 if self.is_bf16 else 4

    @property
    def products(self) -> int:
        """Products per tile and pair of channels of a picture."""
        return self.vertical.products * self.horizontal.products

    def tiles(self, height: int, width: int) -> int:
        """Tiles of a picture."""
        rows = math.ceil(height / self.vertical.outputs)
        return rows * math.ceil(width / self.horizontal.outputs)

    def gains(self, length: int, height: int, width: int) -> bool:
        """Tell whether clips of a size take so many products less that they are faster this way.

        Direct sums leave out what falls before a clip or after it.
        """
        reach = range(-(self.depth // 2), self.depth // 2 + 1)
        pictures = sum(max(0, length - abs(shift)) for shift in reach)
        direct = pictures * height * width * self.vertical.taps * self.horizontal.taps
        own = length * self.depth * self.tiles(height, width) * self.products
        return direct >= _LEAST_GAIN * own


def form_of(weight_shape: torch.Size, dtype: torch.dtype) -> Form | None:
    """Choose how to compute a convolution on this processor; none where direct sums are as good.

    Of 32 registers 24 keep sums, of 16 shorter ones 12; the others are for what is multiplied. The
    sums are laid out so that the last panel wastes least.

    Args:
        weight_shape: [out channels, in channels, depth, height, width] of the taps.
        dtype: Of activations.
    """
    out_channels, in_channels, depth, height, width = weight_shape
    taps = (height, width)
    if taps not in _AXES or depth % 2 == 0 or dtype not in (torch.float32, torch.bfloat16):
        return None
    if min(out_channels, in_channels) < _LEAST_CHANNELS:
        return None
    lanes = lanes_here(is_bf16=dtype == torch.bfloat16)
    if lanes is None or out_channels * in_channels * depth > _MOST_WEIGHTS:
        return None
    sums, layouts = (24, (3, 4)) if lanes == 16 else (12, (3, 2))
    vectors = min(layouts, key=lambda count: -out_channels % (count * lanes))
    vertical, horizontal = _AXES[taps]
    return Form(
        is_bf16=dtype == torch.bfloat16,
        lanes=lanes,
        rows=sums // vectors,
        vectors=vectors,
        vertical=vertical,
        horizontal=horizontal,
        depth=depth,
    )

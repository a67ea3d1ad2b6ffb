"""Convolutions with a third of the products, for inference on a CPU.

A convolution of three taps computes neighbouring outputs from the same inputs. Winograd's minimal
filtering takes sums of inputs and of weights first, so that four outputs need six products instead
of twelve, and two outputs four instead of six (`tsp_core.model.winograd_forms` has the sources).
Spatial (1, 3, 3) convolutions take four rows by two columns at a time, 24 products for 72, as do
the three filters of a (3, 3, 3) one, whose products are summed; temporal (3, 1, 1) ones take four
steps in time, six products for twelve.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
import torch.nn.functional as F

from tsp_core.model.winograd_code import Call, kernel
from tsp_core.model.winograd_forms import Form

_TILES = 64
"""Tiles that are transformed and multiplied together, give or take some."""
_SUM_BYTES = 4
_room = threading.local()


class WinogradConv:
    """A convolution of three taps along one or both axes of pictures, stride 1, same size.

    Args:
        weight: Float [out channels, in channels, depth, 3, 3] or [..., 3, 1].
        bias: Float [out channels], or none.
        form: By `tsp_core.model.winograd_forms.form_of`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, form: Form) -> None:
        self._form = form
        self._out_channels, self._in_channels = weight.shape[:2]
        assert weight.shape[2:] == (form.depth, form.vertical.taps, form.horizontal.taps)
        self._padded = math.ceil(self._in_channels / form.lanes) * form.lanes
        self._block = _TILES // form.rows * form.rows
        self.dtype = torch.bfloat16 if form.is_bf16 else torch.float32
        self._weights = self._packed(weight)
        bias = weight.new_zeros(self._out_channels) if bias is None else bias
        missing = -self._out_channels % form.panel
        self._bias = F.pad(bias.detach().float(), (0, missing)).contiguous()
        self._zeros = weight.new_zeros(max(self._padded, form.panel), dtype=self.dtype)

    def suits(self, dtype: torch.dtype, length: int, height: int, width: int) -> bool:
        """Tell whether clips of a size are computed faster than directly."""
        return dtype == self.dtype and self._form.gains(length, height, width)

    def __call__(
        self,
        x: torch.Tensor,
        shortcut: torch.Tensor | None = None,
        *,
        has_relu: bool = False,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Convolve clips.

        Args:
            x: [clips, length, height, width, in channels] in `dtype`, without gaps, on the CPU.
            shortcut: Of the output's shape and dtype, added before the ReLU.
            has_relu: Whether a ReLU follows.
            out: Takes the output; it may be the shortcut, and must not be the input.

        Returns:
            [clips, length, height, width, out channels] in `dtype`, without gaps.

        Raises:
            ValueError: A tensor is of another kind or shape.
        """
        clips, length, height, width = size = x.shape[:4]
        if out is None:
            out = x.new_empty((*size, self._out_channels))
        self._check(x, (*size, self._in_channels))
        for pixels in (out, shortcut):
            if pixels is not None:
                self._check(pixels, (*size, self._out_channels))
        convolve = kernel(replace(self._form, adds_shortcut=shortcut is not None))

        def convolve_tiles(first: int, last: int) -> None:
            call = self._call(x, shortcut, out, has_relu=has_relu)
            call.first, call.last = first, last
            convolve(ctypes.byref(call))

        _in_threads(convolve_tiles, clips * length * self._form.tiles(height, width), self._block)
        return out

    def _call(
        self, x: torch.Tensor, shortcut: torch.Tensor | None, out: torch.Tensor, *, has_relu: bool
    ) -> Call:
        """The kernel's arguments, but for the tiles; the room is that of the calling thread."""
        form = self._form
        of_tiles = form.products * self._block
        inputs = of_tiles * form.depth * self._padded * form.value_bytes
        sums = of_tiles * form.panel * _SUM_BYTES
        room = _room_address(inputs + sums + form.panel * form.value_bytes)
        return Call(
            x=x.data_ptr(),
            weights=self._weights.data_ptr(),
            bias=self._bias.data_ptr(),
            shortcut=0 if shortcut is None else shortcut.data_ptr(),
            y=out.data_ptr(),
            zeros=self._zeros.data_ptr(),
            spare=room + inputs + sums,
            inputs=room,
            sums=room + inputs,
            length=x.shape[1],
            height=x.shape[2],
            width=x.shape[3],
            in_channels=self._in_channels,
            padded_in_channels=self._padded,
            out_channels=self._out_channels,
            block=self._block,
            floor=0.0 if has_relu else -math.inf,
        )

    def _check(self, pixels: torch.Tensor, shape: tuple[int, ...]) -> None:
        """Make sure of what the kernel, which goes by addresses, takes for granted."""
        found = (pixels.dtype, pixels.device.type, tuple(pixels.shape), pixels.is_contiguous())
        if found != (self.dtype, "cpu", shape, True):
            raise ValueError(f"pixels {found}: expected {self.dtype} {shape} on the CPU, no gaps")

    def _packed(self, weight: torch.Tensor) -> torch.Tensor:
        """Transform weights: G g G^T, laid out for the kernel (`Call.weights`)."""
        form = self._form
        weight = weight.detach().double()
        down = weight.new_tensor(form.vertical.of_taps)
        across = weight.new_tensor(form.horizontal.of_taps)
        products = torch.einsum("pa,qb,oidab->pqdio", down, across, weight)
        missing = (0, -self._out_channels % form.panel, 0, self._padded - self._in_channels)
        products = F.pad(products.flatten(0, 1), missing).to(self.dtype)
        pair = 2 if form.is_bf16 else 1
        panels = products.unflatten(3, (-1, form.panel)).unflatten(2, (-1, pair))
        packed: torch.Tensor = panels.permute(4, 0, 1, 2, 5, 3).contiguous()
        return packed


def _room_address(nbytes: int) -> int:
    """The address of memory that a thread keeps from call to call."""
    kept: torch.Tensor | None = getattr(_room, "kept", None)
    if kept is None or kept.nbytes < nbytes:
        _room.kept = kept = torch.empty(nbytes, dtype=torch.uint8, device="cpu")
    return kept.data_ptr()


def _in_threads(work: Callable[[int, int], None], count: int, block: int) -> None:
    """Share blocks among as many threads as torch computes with; without any, do nothing."""
    blocks = math.ceil(count / block)
    threads = min(torch.get_num_threads(), blocks)
    bounds = [min(count, blocks * k // threads * block) for k in range(threads + 1) if threads]
    shares = list(itertools.pairwise(bounds))
    others: list[Future[None]] = []
    try:
        while len(shares) > 1:
            others.append(_pool().submit(work, *shares[-1]))
            shares.pop()
    except RuntimeError:  # the interpreter ends, and starts no threads any more
        pass
    for share in shares:
        work(*share)
    for other in others:
        other.result()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="winograd")

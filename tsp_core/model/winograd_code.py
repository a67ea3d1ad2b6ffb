"""The kernel of `tsp_core.model.winograd`, written for one form by `tsp_core.model.vector_code`."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from tsp_core.model.vector_code import Int, VectorCode, compiled, lanes_here
from tsp_core.model.winograd_forms import Form, Matrix

_BYTES_PER_SUM = 4
_WHOLE_NUMBERS = (
    *("x", "weights", "bias", "shortcut", "y", "zeros", "spare", "inputs", "sums"),
    *("length", "height", "width", "in_channels", "padded_in_channels", "out_channels"),
    *("block", "first", "last"),
)
Kernel = Callable[[Any], None]
_kernels: dict[Form, Kernel] = {}
_one_at_a_time = threading.Lock()


class Call(ctypes.Structure):
    """The arguments of a kernel: addresses, sizes and the tiles to compute.

    Clips are [clips, length, height, width, channels] without gaps.

    Attributes:
        x: The input.
        weights: [panels, products, depth, padded_in_channels / p, panel, p], where p is 2 in bf16
            and 1 in fp32.
        bias: fp32 [panels * panel].
        shortcut: Added, if the form does so; of the output's shape. May be the output itself.
        y: The output.
        zeros: As many zero values as a pixel of the input has, and a panel at least.
        spare: Room for a panel of values.
        inputs: Room for [products, block, depth, padded_in_channels] values.
        sums: Room for [products, block, panel] fp32 sums.
        length: Pictures of a clip.
        height: Of a picture.
        width: Of a picture.
        in_channels: Of a pixel of the input.
        padded_in_channels: The same, filled up to whole vectors.
        out_channels: Of a pixel of the output.
        block: Tiles whose inputs are at hand together, a multiple of `Form.rows`.
        first: The first tile, counted over all pictures of all clips.
        last: The tile after the last.
        floor: The least output: 0 for a ReLU, minus infinity for none.
    """

    _fields_ = [
        *((name, ctypes.c_int64) for name in _WHOLE_NUMBERS),
        ("floor", ctypes.c_float),
    ]


def kernel(form: Form) -> Kernel:
    """Make the machine code of a form, once for all threads.

    Returns:
        Takes `ctypes.byref` of a `Call`, and leaves the interpreter lock while it computes.

    Raises:
        RuntimeError: The form is of another processor's vectors, which LLVM would end the process
            over.
    """
    if form not in _kernels:
        with _one_at_a_time:
            if form not in _kernels:
                _kernels[form] = _made(form)
    return _kernels[form]


def _made(form: Form) -> Kernel:
    lanes = lanes_here(is_bf16=form.is_bf16)
    if lanes is None or lanes < form.lanes:
        raise RuntimeError(
            "the encoder was prepared for another processor; prepare it on the one that runs it"
        )
    engine = compiled(_Writer(form).module)
    function = ctypes.CFUNCTYPE(None, ctypes.POINTER(Call))(engine.get_function_address("convolve"))

    def run(call: Any, _keeps_the_code: Any = engine) -> None:
        function(call)

    return run


class _Writer:
    """Writes the kernel of a form.

    It takes the tiles block by block: transforms the inputs of a block, then, for one panel of
    output channels after the other, multiplies them by the weights and transforms the sums. So the
    transformed inputs and the sums of few tiles are all that there is between two passes over
    memory.
    """

    def __init__(self, form: Form) -> None:
        self.form = form
        self._code = VectorCode("convolve", form.lanes, is_bf16=form.is_bf16)
        places = range(len(_WHOLE_NUMBERS))
        numbers = [self._code.argument(place) for place in places]
        self._call = dict(zip(_WHOLE_NUMBERS, numbers, strict=True))
        self._floor = self._code.float_argument(len(_WHOLE_NUMBERS))
        self._write()
        self.module = self._code.end()

    def _write(self) -> None:
        call, form = self._call, self.form
        columns = call["width"].rounded_up(form.horizontal.outputs)
        rows = call["height"].rounded_up(form.vertical.outputs)
        panels = call["out_channels"].rounded_up(form.panel)

        def place(tile: Int) -> tuple[Int, Int, Int]:
            """Picture, and the tile's first row and column of outputs."""
            row = tile // columns
            return (
                row // rows,
                row % rows * form.vertical.outputs,
                tile % columns * form.horizontal.outputs,
            )

        def one_block(first: Int) -> None:
            count = (call["last"] - first).at_most(call["block"])
            self._code.loop(count, lambda i: self._take_inputs(i, *place(first + i)))

            def one_panel(panel: Int) -> None:
                self._multiply(panel, count)
                self._code.loop(count, lambda i: self._give_outputs(panel, i, *place(first + i)))

            self._code.loop(panels, one_panel)

        self._code.loop(call["last"], one_block, start=call["first"], step=call["block"])

    def _take_inputs(self, tile: Int, picture: Int, row: Int, column: Int) -> None:
        """Transform a tile's inputs: B d B^T for each channel of each picture."""
        call, form = self._call, self.form
        down, across = form.vertical, form.horizontal
        rows = [row + (k - down.taps // 2) for k in range(down.products)]
        columns = [column + (k - across.taps // 2) for k in range(across.products)]
        picture_bytes = call["padded_in_channels"] * form.value_bytes
        tile_bytes = picture_bytes * form.depth

        def one_picture(tap: Int) -> None:
            shift = tap - form.depth // 2
            pixels = self._pixels(
                picture + shift,
                rows,
                columns,
                call["x"],
                call["in_channels"] * form.value_bytes,
                outside=call["zeros"],
                is_inside=(picture % call["length"] + shift).is_index_below(call["length"]),
            )
            target = call["inputs"] + tile * tile_bytes + tap * picture_bytes
            targets = [target + call["block"] * tile_bytes * k for k in range(form.products)]

            def some_channels(chunk: Int) -> None:
                offset = chunk * (form.lanes * form.value_bytes)
                mask = self._code.mask(call["in_channels"] - chunk * form.lanes)
                read = [
                    [self._code.read_values(pixel + offset, mask) for pixel in line]
                    for line in pixels
                ]
                found = self._transformed(down.of_inputs, across.of_inputs, read)
                values = [value for line in found for value in line]
                for value, place in zip(values, targets, strict=True):
                    self._code.write_values(value, place + offset)

            self._code.loop(call["padded_in_channels"] // form.lanes, some_channels)

        self._code.loop(self._code.integer(form.depth), one_picture)

    def _multiply(self, panel: Int, count: Int) -> None:
        """Multiply a block's inputs by a panel of weights, for one product after the other."""
        call, form = self._call, self.form
        tile_bytes = call["padded_in_channels"] * (form.value_bytes * form.depth)
        sums_bytes = form.panel * _BYTES_PER_SUM

        def one_product(product: Int) -> None:
            weights = call["weights"] + (panel * form.products + product) * tile_bytes * form.panel
            first = product * call["block"]

            def some_tiles(group: Int) -> None:
                tile = first + group * form.rows
                self._multiply_few(
                    call["inputs"] + tile * tile_bytes, weights, call["sums"] + tile * sums_bytes
                )

            self._code.loop(count.rounded_up(form.rows), some_tiles)

        self._code.loop(self._code.integer(form.products), one_product)

    def _multiply_few(self, inputs: Int, weights: Int, sums: Int) -> None:
        """Keep the sums of a few tiles in registers, and go through the channels."""
        form = self.form
        tile_bytes = self._call["padded_in_channels"] * (form.value_bytes * form.depth)
        tiles = [inputs + tile_bytes * k for k in range(form.rows)]
        vector_bytes = form.lanes * _BYTES_PER_SUM  # of one fp32 or two bf16 weights per lane
        steps = tile_bytes // _BYTES_PER_SUM
        zeros = [self._code.constant(0.0)] * (form.rows * form.vectors)

        def one_step(step: Int, before: Sequence[ir.Value]) -> list[ir.Value]:
            line = weights + step * (vector_bytes * form.vectors)
            across = [self._code.read_factors(line + vector_bytes * k) for k in range(form.vectors)]
            after = []
            for row, tile in enumerate(tiles):
                value = self._code.read_factor(tile + step * _BYTES_PER_SUM)
                for k, weight in enumerate(across):
                    total = before[row * form.vectors + k]
                    after.append(self._code.add_product(total, value, weight))
            return after

        found = self._code.loop(steps, one_step, carried=zeros)
        for k, value in enumerate(found):
            self._code.write_sums(value, sums + k * vector_bytes)

    def _give_outputs(self, panel: Int, tile: Int, picture: Int, row: Int, column: Int) -> None:
        """Transform a tile's sums: A m A^T; add bias and shortcut, apply the floor, write."""
        call, form = self._call, self.form
        down, across = form.vertical, form.horizontal
        panel_bytes = panel * (form.panel * form.value_bytes)
        pixel_bytes = call["out_channels"] * form.value_bytes
        rows = [row + k for k in range(down.outputs)]
        columns = [column + k for k in range(across.outputs)]

        def pixels_of(name: str, outside: str) -> list[Int]:
            base = call[name] + panel_bytes
            lines = self._pixels(picture, rows, columns, base, pixel_bytes, call[outside])
            return [pixel for line in lines for pixel in line]

        targets = pixels_of("y", outside="spare")
        shortcuts = pixels_of("shortcut", outside="zeros") if form.adds_shortcut else None
        vector_bytes = form.lanes * _BYTES_PER_SUM
        product_bytes = call["block"] * (vector_bytes * form.vectors)
        sums = call["sums"] + tile * (vector_bytes * form.vectors)
        bias = call["bias"] + panel * (vector_bytes * form.vectors)
        for k in range(form.vectors):
            first = sums + k * vector_bytes
            found = [
                [
                    self._code.read_sums(first + product_bytes * (i * across.products + j))
                    for j in range(across.products)
                ]
                for i in range(down.products)
            ]
            outputs = self._transformed(down.of_outputs, across.of_outputs, found)
            added = self._code.read_sums(bias + k * vector_bytes)
            mask = self._code.mask(call["out_channels"] - (panel * form.panel + k * form.lanes))
            offset = k * form.lanes * form.value_bytes
            for n, value in enumerate(value for line in outputs for value in line):
                total = self._code.add(value, added)
                if shortcuts is not None:
                    shortcut = self._code.read_values(shortcuts[n] + offset, mask)
                    total = self._code.add(total, shortcut)
                output = self._code.at_least(total, self._floor)
                self._code.write_values(output, targets[n] + offset, mask)

    def _pixels(
        self,
        picture: Int,
        rows: Sequence[Int],
        columns: Sequence[Int],
        base: Int,
        pixel_bytes: Int,
        outside: Int,
        is_inside: ir.Value | None = None,
    ) -> list[list[Int]]:
        """Addresses of pixels, and of something else for those outside of the picture or clip."""
        height, width = self._call["height"], self._call["width"]
        is_column = [column.is_index_below(width) for column in columns]
        found = []
        for row in rows:
            is_row = row.is_index_below(height)
            if is_inside is not None:
                is_row = self._code.both(is_row, is_inside)
            start = base + (picture * height + row) * width * pixel_bytes
            found.append(
                [
                    (start + column * pixel_bytes).where(self._code.both(is_row, is_here), outside)
                    for column, is_here in zip(columns, is_column, strict=True)
                ]
            )
        return found

    def _transformed(
        self, left: Matrix, right: Matrix, values: list[list[ir.Value]]
    ) -> list[list[ir.Value]]:
        """Compute left @ values @ right^T."""
        columns = list(zip(*values, strict=True))
        half = [[self._code.weighted_sum(row, column) for column in columns] for row in left]
        return [[self._code.weighted_sum(row, line) for row in right] for line in half]

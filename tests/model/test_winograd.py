"""Convolutions with few products give what the direct sums give, on any shape."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import cast
from unittest import mock

import llvmlite.binding as llvm
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tsp_core.model import winograd, winograd_code, winograd_forms
from tsp_core.model.encoders import arrange_channels_last
from tsp_core.model.fusion import FusedConv, fuse_for_cpu, has_fused_kernels
from tsp_core.model.inference import forward_features, prepare_for_inference
from tsp_core.model.vector_code import lanes_here
from tsp_core.model.weights import open_encoder
from tsp_core.model.winograd import WinogradConv
from tsp_core.model.winograd_forms import FOUR_OUTPUTS, ONE_TAP, TWO_OUTPUTS, Axis, Form, form_of

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
"""Of the size of outputs."""
SPATIAL, TEMPORAL, BOTH = (1, 3, 3), (1, 3, 1), (3, 3, 3)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    torch.manual_seed(0)


def form(dtype: torch.dtype, shape: tuple[int, ...], lanes: int = 16) -> Form:
    """The form for a filter on vectors of some length, where the processor has them."""
    has = lanes_here(is_bf16=dtype == torch.bfloat16)
    if has is None or has < lanes:
        pytest.skip(f"this processor has no vectors of {lanes} {dtype} values to multiply")
    with mock.patch.object(winograd_forms, "lanes_here", return_value=lanes):
        found = form_of(torch.Size(shape), dtype)
    assert found is not None
    return found


def filters(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    fan_in = torch.Size(shape[1:]).numel()
    return torch.randn(shape) / fan_in**0.5, torch.randn(shape[0])


def direct(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    padding = [size // 2 for size in weight.shape[2:]]
    bias = None if bias is None else bias.double()
    found = F.conv3d(x.movedim(-1, 1).double(), weight.double(), bias, padding=padding)
    return found.movedim(1, -1)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("axis", [FOUR_OUTPUTS, TWO_OUTPUTS, ONE_TAP])
def test_matrices_filter_exactly(axis: Axis) -> None:
    def exact(value: float) -> Fraction:
        return Fraction(value).limit_denominator(100)

    def product(matrix: tuple[tuple[float, ...], ...], column: list[Fraction]) -> list[Fraction]:
        return [
            sum((exact(a) * b for a, b in zip(row, column, strict=True)), Fraction())
            for row in matrix
        ]

    for tap, place in itertools.product(range(axis.taps), range(axis.products)):
        taps = [Fraction(k == tap) for k in range(axis.taps)]
        inputs = [Fraction(k == place) for k in range(axis.products)]
        pairs = zip(product(axis.of_taps, taps), product(axis.of_inputs, inputs), strict=True)
        found = product(axis.of_outputs, [a * b for a, b in pairs])
        assert found == [Fraction(k + tap == place) for k in range(axis.outputs)]


@pytest.mark.parametrize(
    ("dtype", "lanes"), [(torch.float32, 8), (torch.float32, 16), (torch.bfloat16, 16)]
)
@pytest.mark.parametrize(
    ("clips", "size", "channels", "taps"),
    [
        ((1, 1), (4, 2), (32, 48), SPATIAL),  # one tile
        ((2, 3), (9, 11), (33, 50), SPATIAL),  # a last panel with vectors of nothing
        ((1, 2), (16, 16), (64, 144), SPATIAL),
        ((2, 3), (5, 3), (32, 64), BOTH),
        ((1, 1), (8, 8), (40, 70), BOTH),  # clips of one picture
        ((3, 1), (10, 7), (45, 64), TEMPORAL),
        ((1, 1), (4, 300), (230, 128), TEMPORAL),
    ],
)
def test_outputs_are_those_of_the_direct_sum(
    clips: tuple[int, int],
    size: tuple[int, int],
    channels: tuple[int, int],
    taps: tuple[int, int, int],
    dtype: torch.dtype,
    lanes: int,
) -> None:
    weight, bias = filters(channels[1], channels[0], *taps)
    conv = WinogradConv(weight, bias, form(dtype, (*weight.shape,), lanes))
    x = torch.randn(*clips, *size, channels[0]).to(dtype)
    expected = direct(x, weight, bias)
    assert error(conv(x), expected) <= TOLERANCES[dtype]
    shortcut = torch.randn(expected.shape).to(dtype)
    expected = (expected + shortcut.double()).relu()
    found = conv(x, shortcut.clone(), has_relu=True)
    assert error(found, expected) <= TOLERANCES[dtype]
    in_place = conv(x, shortcut, has_relu=True, out=shortcut)
    assert in_place.data_ptr() == shortcut.data_ptr()
    assert torch.equal(in_place, found)
    without_bias = WinogradConv(weight, None, form(dtype, (*weight.shape,), lanes))
    assert error(without_bias(x), direct(x, weight, None)) <= TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("taps", [SPATIAL, TEMPORAL, BOTH])
def test_nothing_is_written_around_the_output(
    taps: tuple[int, int, int], dtype: torch.dtype
) -> None:
    weight, bias = filters(50, 33, *taps)
    conv = WinogradConv(weight, bias, form(dtype, (*weight.shape,)))
    x = torch.randn(1, 2, 5, 3, 33).to(dtype)
    around = torch.full((3, 1, 2, 5, 3, 50), 7.0, dtype=dtype)
    conv(x, out=around[1])
    assert torch.equal(around[1], conv(x))
    assert (around[::2] == 7).all()


def test_no_clips_give_no_outputs() -> None:
    weight, bias = filters(48, 32, *SPATIAL)
    conv = WinogradConv(weight, bias, form(torch.float32, (*weight.shape,)))
    assert conv(torch.zeros(0, 4, 14, 14, 32)).shape == (0, 4, 14, 14, 48)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_neither_threads_nor_neighbours_in_the_batch_change_a_bit() -> None:
    weight, bias = filters(48, 32, *BOTH)
    conv = WinogradConv(weight, bias, form(torch.float32, (*weight.shape,)))
    clips = torch.randn(3, 4, 14, 14, 32)
    torch.set_num_threads(1)
    alone = torch.cat([conv(clip[None]) for clip in clips])
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        assert torch.equal(conv(clips), alone)


def test_what_is_not_a_number_shows_where_it_is_and_nowhere_else() -> None:
    weight, bias = filters(48, 32, *SPATIAL)
    conv = WinogradConv(weight, bias, form(torch.float32, (*weight.shape,)))
    x = torch.randn(1, 2, 16, 16, 32)
    x[0, 0, 6, 6, 3] = torch.nan
    found = conv(x, has_relu=True)
    assert found[0, 0, 5:8, 5:8].isnan().all()
    assert found[0, 1].isfinite().all()
    assert found[0, 0, 12:].isfinite().all()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((16, 64, 1, 3, 3), torch.float32),  # few channels
        ((512, 1024, 1, 3, 3), torch.float32),  # many weights
        ((64, 64, 1, 5, 5), torch.float32),
        ((64, 64, 1, 1, 1), torch.float32),
        ((64, 64, 1, 3, 3), torch.float16),
    ],
)
def test_other_filters_are_left_to_direct_sums(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert form_of(torch.Size(shape), dtype) is None


def test_small_pictures_are_left_to_direct_sums() -> None:
    weight, bias = filters(64, 64, *SPATIAL)
    conv = WinogradConv(weight, bias, form(torch.float32, (*weight.shape,)))
    sizes = [(56, 56), (7, 7), (4, 2), (3, 1), (1, 1)]
    suits = [conv.suits(torch.float32, 1, *size) for size in sizes]
    assert suits == [True, True, True, False, False]
    assert not conv.suits(torch.bfloat16, 1, 56, 56)
    weight, bias = filters(64, 64, *TEMPORAL)
    conv = WinogradConv(weight, bias, form(torch.float32, (*weight.shape,)))
    lengths = [16, 8, 5, 4, 2]
    suits = [conv.suits(torch.float32, 1, length, 49) for length in lengths]
    assert suits == [True, True, False, True, False]


def test_short_clips_are_left_to_direct_sums_which_skip_what_is_outside() -> None:
    weight, bias = filters(64, 64, *BOTH)
    conv = WinogradConv(weight, bias, form(torch.float32, (*weight.shape,)))
    suits = [conv.suits(torch.float32, length, 28, 28) for length in (16, 2, 1)]
    assert suits == [True, True, False]


AVX512 = ("avx512f", "avx512bw", "avx512vl")


@pytest.mark.parametrize(
    ("features", "fp32", "bf16"),
    [
        ((*AVX512, "avx512bf16", "avx2", "fma"), 16, 16),
        ((*AVX512, "avx512bf16", "amx-bf16"), 16, None),
        ((*AVX512, "avx2", "fma"), 16, None),
        (("avx2", "fma"), 8, None),
        (("avx2",), None, None),
        (("neon",), None, None),
    ],
)
def test_forms_follow_the_processor(
    features: tuple[str, ...],
    fp32: int | None,
    bf16: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: dict.fromkeys(features, True))
    shape = torch.Size((64, 64, 1, 3, 3))
    found = [form_of(shape, dtype) for dtype in (torch.float32, torch.bfloat16)]
    assert [None if it is None else it.lanes for it in found] == [fp32, bf16]


def test_kernels_of_another_processor_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made_there = form(torch.float32, (64, 64, 1, 3, 3))
    monkeypatch.setattr(winograd_code, "_kernels", {})
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: {"neon": True})
    with pytest.raises(RuntimeError, match="prepared for another processor"):
        winograd_code.kernel(made_there)


def test_a_form_is_compiled_once_for_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = filters(48, 32, *SPATIAL)
    conv = WinogradConv(weight, bias, form(torch.float32, (*weight.shape,)))
    expected, x = conv(torch.ones(1, 1, 8, 8, 32)), torch.ones(1, 1, 8, 8, 32)
    made: list[Form] = []
    monkeypatch.setattr(winograd_code, "_kernels", {})
    make = winograd_code._made

    def noted(it: Form) -> winograd_code.Kernel:
        made.append(it)
        return make(it)

    monkeypatch.setattr(winograd_code, "_made", noted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: conv(x), range(8)))
    assert len(made) == 1
    assert all(torch.equal(it, expected) for it in found)


@pytest.mark.usefixtures("threads")
def test_an_interpreter_that_ends_starts_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = filters(48, 32, *SPATIAL)
    conv = WinogradConv(weight, bias, form(torch.float32, (*weight.shape,)))
    x = torch.randn(2, 4, 14, 14, 32)
    torch.set_num_threads(3)
    expected = conv(x)
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    monkeypatch.setattr(winograd, "_pool", lambda: pool)
    assert torch.equal(conv(x), expected)


class Block(nn.Module):
    """Convolutions as encoders have them, one of which adds a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Conv3d(32, 50, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.norm = nn.BatchNorm3d(50)
        self.temporal = nn.Conv3d(50, 32, (3, 1, 1), padding=(1, 0, 0))
        self.both = nn.Conv3d(32, 32, 3, padding=1)
        self.strided = nn.Conv3d(32, 32, 3, padding=1, stride=2)
        self.unpadded = nn.Conv3d(32, 32, (1, 3, 3))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.relu(self.norm(self.spatial(x)))
        found = self.relu(self.temporal(found) + x)
        found = self.relu(self.both(found))
        found = self.strided(found)
        return cast(torch.Tensor, self.unpadded(found))


def test_parts_of_encoders_take_few_products_where_they_can() -> None:
    form(torch.float32, (32, 32, 1, 3, 3))  # skips where the processor cannot
    block = Block().eval()
    x = torch.randn(2, 32, 8, 12, 12)
    fused = fuse_for_cpu(block)
    with torch.inference_mode():
        expected = block(x)
        found = fused(x.contiguous(memory_format=torch.channels_last_3d))
    assert error(found, expected.double()) <= 2e-6
    taken = {
        name.removeprefix("part.")
        for name, layer in fused.named_modules()
        if isinstance(layer, FusedConv) and layer._winograd is not None
    }
    assert taken == {"spatial", "temporal", "both"}


def test_an_even_depth_is_left_to_direct_sums() -> None:
    conv = nn.Sequential(nn.Conv3d(32, 32, (2, 3, 3), padding=1)).eval()
    x = torch.randn(1, 32, 6, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        assert error(fuse_for_cpu(conv)(x), conv(x).double()) <= 2e-6


class Alias(nn.Module):
    """The input of the second convolution is the shortcut, by another name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv3d(32, 32, 3, padding=1) for _ in range(2))
        self.same = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.first(x)
        return torch.relu(self.second(self.same(found)) + found)


class Broadcast(nn.Module):
    """What is added has one clip only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(32, 32, 3, padding=1)
        self.relu = nn.ReLU()
        self.place = nn.Parameter(torch.randn(1, 32, 4, 12, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.relu(self.place + self.conv(x)))


class Pooled(nn.Module):
    """What is added is larger than the convolution's output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv3d(32, 32, (4, 12, 12)), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.relu(x + self.conv(x)))


class Bare(nn.Module):
    """Additions without a ReLU after them."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Conv3d(32, 32, 3, padding=1), nn.Conv3d(32, 32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = x + self.large(x)
        return cast(torch.Tensor, found + self.small(found))


class Again(nn.Module):
    """A convolution that is used twice, and a shortcut that is used again later."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv3d(32, 32, 3, padding=1), nn.BatchNorm3d(32)
        self.first, self.second = (nn.Conv3d(32, 32, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        twice = self.norm(self.conv(self.relu(self.conv(x))))
        found = self.first(twice)
        return cast(torch.Tensor, self.relu(self.second(twice) + found) * found)


class Grouped(nn.Module):
    """Convolutions in groups, and dilated ones, with shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = nn.Conv3d(64, 64, 3, padding=1, groups=2)
        self.dilated = nn.Conv3d(64, 32, 3, padding=1, dilation=2)
        self.widen, self.relu = nn.Conv3d(32, 64, 1), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.widen(x)
        return cast(torch.Tensor, self.dilated(self.relu(self.groups(wide) + wide)))


@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("kind", [Alias, Broadcast, Pooled, Bare, Again, Grouped])
def test_parts_of_any_kind_give_what_they_gave(kind: type[nn.Module], dtype: torch.dtype) -> None:
    if not has_fused_kernels(dtype):
        pytest.skip(f"this processor computes no {dtype}")
    module = kind().eval().requires_grad_(False)
    x = torch.randn(2, 32, 4, 12, 12).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        expected = module(x).double()
        fused = fuse_for_cpu(module, dtype).to(dtype)
        arrange_channels_last(fused)
        assert error(fused(x.to(dtype)), expected) <= TOLERANCES[dtype]


@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18"])
def test_an_encoder_takes_no_clips_and_any_others(name: str) -> None:
    encoder = open_encoder("random:0", name=name).encoder
    prepared = prepare_for_inference(encoder, device="cpu", precision="fp32")
    clips = torch.randn(3, 3, 5, 49, 33)
    with torch.inference_mode():
        expected = encoder(clips)
    assert forward_features(prepared, clips[:0]).shape == (0, 512)
    assert error(forward_features(prepared, clips), expected.double()) <= 1e-5

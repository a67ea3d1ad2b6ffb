"""Clips per second through an encoder on the CPU against the plain fp32 network, per core.

Prints how far the features are from the plain network's, and how much of what a large matrix
product reaches in the same run the convolutions reach, counted as direct sums. On a processor
without bf16 instructions bf16 is computed in fp32, and measured so. With --compiled also what
`torch.compile` makes of the network; --encoder measures another one than R(2+1)D-18.
`python -m benchmarks.model_cpu [--quick] [--batch N] [--compiled] [--encoder r3d_18|mc3_18]`
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure
from benchmarks.measure import Rates, Row
from tsp_core.model.inference import forward_features, prepare_for_inference

TARGETS = {"fp32": 2.0, "bf16": 5.0}
"""Times the plain network's rate, for R(2+1)D-18."""
CEILING_TARGET = 0.7
_ENCODERS = {"r2plus1d_18": "R(2+1)D-18", "r3d_18": "R3D-18", "mc3_18": "MC3-18"}
_MATRIX_SIZE = 4096


def run(
    quick: bool,
    batch: int | None = None,
    compiled: bool = False,
    encoder: str = "r2plus1d_18",
) -> list[Row]:
    """Measure with one thread: with more, threads that wait for each other count as busy."""
    torch.set_num_threads(1)
    batch = batch or (4 if quick else 8)
    plain, name = _plain_network(encoder), _ENCODERS[encoder]
    clips = torch.randn(batch, 3, 16, 112, 112, generator=torch.Generator().manual_seed(0))
    works: dict[str, Callable[[], int]] = {"plain": partial(_count, plain, clips)}
    rows = []
    dtypes = {}
    for precision in ("fp32", "bf16"):
        prepared = prepare_for_inference(plain, device="cpu", precision=precision)
        dtypes[precision] = prepared.dtype
        works[precision] = partial(_count, partial(forward_features, prepared), clips)
        works[f"matrix {precision}"] = partial(_matrix_product, *_matrices(prepared.dtype))
        rows += _accuracy_rows(plain, partial(forward_features, prepared), clips, name, precision)
    if compiled:
        for dtype in sorted(set(dtypes.values()), key=str):
            precision = str(dtype).removeprefix("torch.")
            works[f"compiled {precision}"], row = _compiled(plain, clips, name, precision, dtype)
            rows.append(row)
    for work in works.values():
        work()
    rates = measure.side_by_side(works, rounds=2 if quick else 3)
    flops = _flops_per_clip(plain)
    for precision, dtype in dtypes.items():
        note = f"batches of {batch}, 1 thread"
        if precision == "bf16" and dtype == torch.float32:
            note += "; no bf16 instructions here, computed in fp32"
        rows += _speed_rows(rates, name, precision, flops, note)
    for what, rate in rates.items():
        if what.startswith("compiled"):
            rows.append(measure.rate_row(f"{name}, {what}", rate, rates["plain"]))
    return rows


def _plain_network(encoder: str) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = getattr(torchvision.models.video, encoder)(weights=None).eval()
    network.fc = nn.Identity()
    return network


def _count(network: Callable[[torch.Tensor], torch.Tensor], clips: torch.Tensor) -> int:
    with torch.inference_mode():
        network(clips)
    return len(clips)


def _matrices(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.randn(_MATRIX_SIZE, _MATRIX_SIZE, dtype=dtype),
        torch.randn(_MATRIX_SIZE, _MATRIX_SIZE, dtype=dtype),
    )


def _matrix_product(a: torch.Tensor, b: torch.Tensor) -> int:
    torch.mm(a, b)
    return 2 * _MATRIX_SIZE**3  # floating-point operations


def _flops_per_clip(network: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 16, 112, 112))
    return int(counter.get_total_flops())


def _accuracy_rows(
    plain: nn.Module,
    ours: Callable[[torch.Tensor], torch.Tensor],
    clips: torch.Tensor,
    network: str,
    precision: str,
) -> list[Row]:
    """The largest difference over some clips."""
    clips = clips[:2]
    with torch.inference_mode():
        expected, found = plain(clips), ours(clips)
    error = float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())
    cosine = float(torch.cosine_similarity(found.double(), expected.double()).min())
    if precision == "fp32":
        name = f"{network}, fp32: relative error of features"
        return [measure.row(name, error, unit="", target="<= 1e-4")]
    name = f"{network}, bf16: 1 - cosine of features"
    return [measure.row(name, 1 - cosine, unit="", target="<= 1e-3")]


def _speed_rows(
    rates: dict[str, Rates], network: str, precision: str, flops: int, notes: str
) -> list[Row]:
    ours, ceiling = rates[precision], rates[f"matrix {precision}"]
    share = measure.ratio(ours, ceiling) * flops
    name = f"{network}, {precision}"
    target = f">= {TARGETS[precision]:g}x" if network == _ENCODERS["r2plus1d_18"] else ""
    return [
        measure.rate_row(name, ours, rates["plain"], target=target, notes=notes),
        measure.row(
            f"{name}: share of a matrix product's rate",
            share,
            unit="",
            target=f">= {CEILING_TARGET}" if precision == "bf16" else "",
            notes=f"{ours.per_core * flops / 1e9:.0f} of {ceiling.per_core / 1e9:.0f} GFLOP/s; "
            "counts the products of direct sums",
        ),
    ]


def _compiled(
    plain: nn.Module, clips: torch.Tensor, name: str, precision: str, dtype: torch.dtype
) -> tuple[Callable[[], int], Row]:
    """The network in channels-last memory, compiled for the CPU with its weights packed."""
    import torch._inductor.config

    torch._inductor.config.freezing = True
    network = copy.deepcopy(plain).to(dtype).to(memory_format=torch.channels_last_3d)
    network = network.requires_grad_(False)
    clips = clips.to(dtype, memory_format=torch.channels_last_3d)
    compiled = torch.compile(network)

    def work() -> int:
        with torch.no_grad():
            compiled(clips)
        return len(clips)

    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return work, measure.row(f"{name}, compiling for {precision}", seconds, unit="s")


if __name__ == "__main__":
    _options = measure.arguments(
        __doc__,
        batch={"type": int, "default": None},
        compiled={"action": "store_true"},
        encoder={"choices": list(_ENCODERS), "default": "r2plus1d_18"},
    )
    measure.report(
        run(_options.quick, _options.batch, _options.compiled, _options.encoder), _options.json
    )

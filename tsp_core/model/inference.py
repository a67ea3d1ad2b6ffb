"""Encoders made fast for inference, inside the tolerances that features have to keep.

Measured per clip against the default layout: fp32 within 1e-6 relative, bf16 with a cosine above
0.9999. What is done, in order of gain on a CPU:

- channels-last memory, in which the convolution kernels work without copies;
- bf16 weights and activations where asked for (GPUs, and processors with AVX512-BF16 or AMX; on
  other processors bf16 is computed in fp32, which is what their bf16 kernels do, only slowly);
- convolutions with a third of the products (`tsp_core.model.winograd`);
- layers folded together and run on few clips at a time (`tsp_core.model.fusion`);
- on a GPU, if asked for, compilation by `torch.compile`. On a CPU it gains nothing over the above
  (docs/performance.md) and needs a C++ compiler.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tsp_core.config import Precision
from tsp_core.errors import ConfigError
from tsp_core.model.encoders import arrange_channels_last
from tsp_core.model.fusion import fold_batch_norms, fuse_for_cpu

_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_PARTS = ("stem", "layer1", "layer2", "layer3", "layer4")
_cudnn_flags_lock = threading.Lock()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreparedEncoder:
    """An encoder ready for `forward_features`, on its device, in its arithmetic."""

    module: Callable[[torch.Tensor], Any]
    device: torch.device
    dtype: torch.dtype


def prepare_for_inference(
    encoder: nn.Module,
    *,
    device: torch.device | str,
    precision: Precision,
    compiled: bool = False,
) -> PreparedEncoder:
    """Copy an encoder into a form that is fast to run; the encoder itself stays as it is.

    Args:
        encoder: Maps float clips [B, 3, L, H, W] to [B, F]. On a CPU one that does so through the
            modules `stem` and `layer1` to `layer4`, each after the other, runs faster.
        device: Where it will run.
        precision: Arithmetic of weights and activations. A processor without instructions for bf16
            computes fp32 in its place, and a warning says so.
        compiled: Compile it on a GPU, at the first batch; takes about a minute for each new shape.

    Raises:
        ConfigError: fp16 on a CPU, which computes it slowly or not at all.
    """
    device = torch.device(device)
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("precision: 'fp16' needs a GPU; use 'bf16' or 'fp32' on a CPU")
    dtype = _DTYPES[precision]
    module = copy.deepcopy(encoder).eval().requires_grad_(False)
    if device.type == "cpu":
        if precision == "bf16" and not has_bf16_instructions():
            _log.warning("bf16: this processor lacks the instructions; fp32 is computed instead")
            dtype = torch.float32
        return PreparedEncoder(module=_for_cpu(module, dtype), device=device, dtype=dtype)
    module = _rewritten(module, fold_batch_norms).to(device, dtype)
    arrange_channels_last(module)
    run = _Compiled(module) if compiled else module
    return PreparedEncoder(module=run, device=device, dtype=dtype)


def forward_features(prepared: PreparedEncoder, clips: torch.Tensor) -> torch.Tensor:
    """Run clips through a prepared encoder.

    Args:
        prepared: By `prepare_for_inference`.
        clips: Float [B, 3, L, H, W], normalised, on any device.

    Returns:
        Features, float32 [B, F], on the encoder's device.
    """
    with torch.inference_mode(), _exact_kernels(prepared.device):
        clips = clips.to(prepared.device, non_blocking=True)
        clips = clips.to(prepared.dtype, memory_format=torch.channels_last_3d)
        features: torch.Tensor = prepared.module(clips)
        return features.float()


@contextmanager
def _exact_kernels(device: torch.device) -> Iterator[None]:
    """Deterministic kernels, and no TensorFloat-32, which would cost fp32 three digits on a GPU.

    The flags are the process's: one thread at a time sets them and queues its work.
    """
    if device.type == "cpu":
        yield
        return
    flags = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with _cudnn_flags_lock, flags:
        yield


def _for_cpu(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Rewrite an encoder, if it has the parts of a ResNet."""
    if all(isinstance(getattr(module, name, None), nn.Module) for name in _PARTS):
        module = _rewritten(module, functools.partial(_with_fused_parts, dtype=dtype))
    module = module.to(dtype)  # only now: batch norms are folded in the weights' own precision
    arrange_channels_last(module)
    return module


def _with_fused_parts(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Fuse part by part; the stem's output is the largest, so layer 1 goes with it."""
    parts: dict[str, nn.Module] = {name: getattr(module, name) for name in _PARTS}
    first = nn.Sequential(parts.pop("stem"), parts.pop("layer1"))
    fused = {"stem": fuse_for_cpu(first, dtype), "layer1": nn.Identity()}
    fused |= {name: fuse_for_cpu(part, dtype) for name, part in parts.items()}
    for name, part in fused.items():
        setattr(module, name, part)
    return module


def _rewritten(module: nn.Module, rewrite: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Rewrite an encoder; one of an extension that torch cannot trace runs as it is."""
    try:
        return rewrite(module)
    except Exception as error:  # tracing runs the encoder's own code
        _log.warning("the encoder cannot be rewritten and runs as it is, slower: %s", error)
        return module


def has_bf16_instructions() -> bool:
    """Tell whether the processor multiplies bf16 numbers itself, as far as torch knows.

    Where it does not, torch's convolutions take one to two hundred times as long as in fp32.
    """
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if not capabilities:  # older releases of torch have a function for each
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
    return any("bf16" in name and has for name, has in capabilities.items())


class _Compiled:
    """A module that is compiled when it is first run; it runs as it is where that fails.

    Every batch size is compiled anew, so batches are filled up to the largest one that was seen.
    """

    def __init__(self, module: nn.Module) -> None:
        # Beside torch's downloads instead of in /tmp, so that it outlives a restart.
        cache = Path(torch.hub.get_dir()).parent / "inductor"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
        self._module = module
        self._compiled: Callable[..., Any] | None = torch.compile(module, dynamic=False)
        self._batch_size = 0

    def __call__(self, clips: torch.Tensor) -> Any:
        if self._compiled is None:
            return self._module(clips)
        count = len(clips)
        self._batch_size = max(self._batch_size, count)
        if count < self._batch_size:  # `cat` of clips and a view of them forgets the layout
            missing = clips[:1].expand(self._batch_size - count, *clips.shape[1:])
            filled = torch.cat([clips, missing])
            clips = filled.contiguous(memory_format=torch.channels_last_3d)
        try:
            return self._compiled(clips)[:count]
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, OSError) as error:
            _log.warning("compiling the encoder fails, it runs uncompiled: %s", error)
            self._compiled = None
            return self._module(clips)[:count]

"""Encoders rewritten for inference: layers folded together, the work cut to fit the caches.

- Batch normalisation is folded into the convolution before it.
- On the CPU a convolution also adds the shortcut and takes the ReLU, while its output is at hand.
- On the CPU convolutions of three taps take a third or a half of the products
  (`tsp_core.model.winograd`), where the processor has vectors to do so.
- On the CPU temporal (k,1,1) convolutions are computed as 2-D ones over (time, pixels): the same
  sums over the same memory, for which the fp32 kernels are three to four times as fast. With AMX
  they stay 3-D in bf16, for which its kernels are the faster ones.
- On the CPU a group of layers works on few clips at a time, so that activations stay in the cache
  and in memory that the allocator keeps: beyond 32 MB it returns each block to the system, and the
  next activation pays a page fault for every 4 kB.
"""

from __future__ import annotations

import operator
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tsp_core.model.vector_code import multiplies_tiles
from tsp_core.model.winograd import WinogradConv
from tsp_core.model.winograd_forms import form_of

_ACTIVATION_BYTES = 32 << 20
"""The largest block that glibc keeps for reuse; also about the cache of a small processor."""
_ACTIVATION_BYTES_PER_THREAD = 4 << 20
"""Larger processors have about this much cache per core, and need work for all cores."""

_ONE_TRACE_AT_A_TIME = threading.Lock()
"""Tracing replaces methods of all modules of the process, and puts back what it found there."""


def fold_batch_norms(module: nn.Module) -> fx.GraphModule:
    """Trace a module in evaluation mode and fold batch normalisations into convolutions."""
    with _ONE_TRACE_AT_A_TIME:
        traced = fx.GraphModule(module, _Tracer().trace(module))
    for node, conv in _convolutions(traced):
        user = _only_user(node)
        if user is not None and isinstance(norm := _layer(traced, user), nn.BatchNorm3d):
            traced.set_submodule(str(node.target), fuse_conv_bn_eval(conv, norm))
            _merge(user, node)
    return _finished(traced)


def fuse_for_cpu(module: nn.Module, dtype: torch.dtype = torch.float32) -> CacheSized:
    """Fold batch normalisations, shortcuts and ReLUs into the convolutions of a part.

    Args:
        module: In evaluation mode, with fp32 weights.
        dtype: What the part will compute in, once its weights are converted.
    """
    traced = fold_batch_norms(module)
    order = {node: index for index, node in enumerate(traced.graph.nodes)}
    for node, conv in _convolutions(traced):
        fused = FusedConv(conv, dtype)
        traced.set_submodule(str(node.target), fused)
        user = _only_user(node)
        if user is not None and user.target in (operator.add, operator.iadd):
            shortcut = next((it for it in user.all_input_nodes if it is not node), node)
            if order[shortcut] < order[node]:
                is_last = all(order[it] < order[node] for it in shortcut.users if it is not user)
                is_own = isinstance(_layer(traced, shortcut), FusedConv)
                fused.overwrites_shortcut = is_last and is_own
                node.args = (*node.args, shortcut)
                _merge(user, node)
                user = _only_user(node)
        if user is not None and isinstance(_layer(traced, user), nn.ReLU):
            fused.has_relu = True
            _merge(user, node)
    return CacheSized(_finished(traced))


class FusedConv(nn.Module):
    """A 3-D convolution with an optional addition and ReLU after it.

    It calls the project's own kernels for filters of three taps, and otherwise oneDNN's fused
    ones, which `torch.compile` uses too; where a processor or a build of torch lacks them, one
    operation after the other gives the same.

    Attributes:
        has_relu: Whether a ReLU follows.
        overwrites_shortcut: Whether the result may take the place of what is added.
    """

    has_relu = False
    overwrites_shortcut = False

    def __init__(self, conv: nn.Conv3d, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(conv.padding, tuple)
        weight = conv.weight.detach()
        self._is_temporal = conv.kernel_size[1:] == conv.stride[1:] == conv.dilation[1:] == (1, 1)
        self._is_temporal &= conv.padding[1:] == (0, 0) and conv.kernel_size[0] > 1
        self._is_temporal &= dtype != torch.bfloat16 or not multiplies_tiles()
        dims = slice(0, 2) if self._is_temporal else slice(0, 3)  # the 2nd of 2-D ones: all pixels
        layout = torch.channels_last if self._is_temporal else torch.channels_last_3d
        weight = weight.squeeze(4) if self._is_temporal else weight
        self.weight = nn.Parameter(weight.contiguous(memory_format=layout), requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach(), False)
        self._padding = list(conv.padding[dims])
        self._stride = list(conv.stride[dims])
        self._dilation = list(conv.dilation[dims])
        self._groups = conv.groups
        self._axes = list(
            zip(conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True)
        )
        self._winograd = self._few_products(conv, dtype)

    def forward(self, x: torch.Tensor, shortcut: torch.Tensor | None = None) -> torch.Tensor:
        """Compute [B, C, L, H, W] in channels-last memory."""
        if shortcut is None or shortcut.shape == self._output_shape(x):
            return self._computed(x, shortcut, has_relu=self.has_relu)
        found = self._computed(x, None, has_relu=False) + shortcut  # one of them is repeated
        return found.relu_() if self.has_relu else found

    def _computed(
        self, x: torch.Tensor, shortcut: torch.Tensor | None, *, has_relu: bool
    ) -> torch.Tensor:
        shape = (x.shape[0], *x.shape[2:])
        seen = (shape[0], 1, shape[1], shape[2] * shape[3]) if self._is_temporal else shape
        if self._winograd is not None and self._winograd.suits(x.dtype, *seen[1:]):
            channels = self.weight.shape[0]
            pixels = _pixels(x).view(*seen, x.shape[1])
            added = None if shortcut is None else _pixels(shortcut).view(*seen, channels)
            out = added if self._may_overwrite(x, shortcut) else None
            found = self._winograd(pixels, added, has_relu=has_relu, out=out)
            return found.view(*shape, channels).movedim(-1, 1)
        added = None if shortcut is None else self._view(shortcut)
        found = self._fused(self._view(x), added, has_relu=has_relu)
        return _channels_last(found, (found.shape[2], *x.shape[3:])) if self._is_temporal else found

    def _output_shape(self, x: torch.Tensor) -> tuple[int, ...]:
        sizes = (
            (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
            for size, (taps, stride, padding, dilation) in zip(x.shape[2:], self._axes, strict=True)
        )
        return (x.shape[0], self.weight.shape[0], *sizes)

    def _few_products(self, conv: nn.Conv3d, dtype: torch.dtype) -> WinogradConv | None:
        taps = conv.weight.movedim(4, 2) if self._is_temporal else conv.weight
        is_plain = conv.groups == 1 and set(conv.stride) == set(conv.dilation) == {1}
        is_plain &= conv.padding == tuple(size // 2 for size in conv.kernel_size)
        form = form_of(taps.shape, dtype) if is_plain else None
        return None if form is None else WinogradConv(taps, conv.bias, form)

    def _may_overwrite(self, x: torch.Tensor, shortcut: torch.Tensor | None) -> bool:
        """Tell whether the shortcut is not read any more, as the input in another guise either."""
        if shortcut is None or not self.overwrites_shortcut:
            return False
        return x.untyped_storage().data_ptr() != shortcut.untyped_storage().data_ptr()

    def _view(self, x: torch.Tensor) -> torch.Tensor:
        length, height, width = x.shape[2:]
        shape = (length, height * width) if self._is_temporal else (length, height, width)
        return _channels_last(x, shape)

    def _fused(
        self, x: torch.Tensor, shortcut: torch.Tensor | None, *, has_relu: bool
    ) -> torch.Tensor:
        has_kernel = shortcut is None or self._groups == 1
        if not has_kernel or not has_fused_kernels(x.dtype):
            return self._one_by_one(x, shortcut, has_relu=has_relu)
        kernels: Any = torch.ops.mkldnn
        settings = (self._padding, self._stride, self._dilation, self._groups)
        weights = (self.weight, self.bias, *settings)
        added: tuple[Any, ...] = ("add", 1.0, "relu" if has_relu else None, [], "")
        if shortcut is None:
            relu = "relu" if has_relu else "none"
            found = kernels._convolution_pointwise(x, *weights, relu, [], "")
        elif self._may_overwrite(x, shortcut):
            found = kernels._convolution_pointwise_.binary(shortcut, x, *weights, *added)
        else:
            found = kernels._convolution_pointwise.binary(x, shortcut, *weights, *added)
        return cast(torch.Tensor, found)

    def _one_by_one(
        self, x: torch.Tensor, shortcut: torch.Tensor | None, *, has_relu: bool
    ) -> torch.Tensor:
        convolve = F.conv2d if self._is_temporal else F.conv3d
        found = convolve(
            x, self.weight, self.bias, self._stride, self._padding, self._dilation, self._groups
        )
        if shortcut is not None:
            found += shortcut
        return found.relu_() if has_relu else found


def _channels_last(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """View [B, C, ...] as [B, C, *shape] in channels-last memory, and so that torch sees it.

    It goes by the strides, which views leave as they like where a dimension has size 1.
    """
    return _pixels(x).view(x.shape[0], *shape, x.shape[1]).movedim(-1, 1)


def _pixels(x: torch.Tensor) -> torch.Tensor:
    """View [B, C, ...] as its memory, channels last."""
    return x.movedim(1, -1).reshape(-1)


def has_fused_kernels(dtype: torch.dtype) -> bool:
    """Tell whether this processor and this build of torch have oneDNN's fused convolutions."""
    kernels: Any = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(kernels, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or bool(kernels._is_mkldnn_bf16_supported())


class CacheSized(nn.Module):
    """Runs a part on as few clips at a time as keep its largest activation in the cache."""

    def __init__(self, part: fx.GraphModule) -> None:
        super().__init__()
        self.part = part
        self._bytes_per_clip: dict[torch.Size, int] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run clips or activations [B, C, L, H, W] through the part."""
        pieces = x.split(self._clips_at_a_time(x))
        found = [cast(torch.Tensor, self.part(piece)) for piece in pieces]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _clips_at_a_time(self, x: torch.Tensor) -> int:
        shape = x.shape[1:]
        if len(x) == 0:
            return 1
        if shape not in self._bytes_per_clip:
            measured = _LargestActivation(self.part)
            measured.run(x[:1])
            self._bytes_per_clip[shape] = measured.nbytes
        budget = max(_ACTIVATION_BYTES, _ACTIVATION_BYTES_PER_THREAD * torch.get_num_threads())
        return max(1, budget // self._bytes_per_clip[shape])


class _Tracer(fx.Tracer):
    """Sees torchvision's kinds of `Conv3d` as convolutions, too, and its own thread's calls only.

    While a module is traced, calls of every module of the process come here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv3d) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Record a call of the traced module's thread; let those of others through."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """Record the traced module's use of a parameter; give other threads the parameter."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class _LargestActivation(fx.Interpreter):
    """Runs a part and keeps the size of the largest tensor that a layer gives."""

    nbytes = 0

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        self.nbytes = max(self.nbytes, found.nbytes)
        return found


def _convolutions(traced: fx.GraphModule) -> Iterator[tuple[fx.Node, nn.Conv3d]]:
    """Those that are used once: what follows one use of a layer need not follow another."""
    layers = {node: _layer(traced, node) for node in traced.graph.nodes}
    uses = Counter(id(layer) for layer in layers.values())
    for node, conv in layers.items():
        if not isinstance(conv, nn.Conv3d) or uses[id(conv)] > 1:
            continue
        if conv.padding_mode == "zeros":
            yield node, conv


def _layer(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _merge(merged: fx.Node, into: fx.Node) -> None:
    """Drop a step, whose work another does from now on."""
    merged.replace_all_uses_with(into)
    into.graph.erase_node(merged)


def _finished(traced: fx.GraphModule) -> fx.GraphModule:
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced

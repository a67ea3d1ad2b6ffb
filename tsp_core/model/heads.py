"""The encoder with its heads (paper, section 3.2), under the released code's module names."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import torch
from torch import nn

from tsp_core.errors import GvfError
from tsp_core.model.encoders import feature_size

Heads = Literal["tsp", "tac", "region"]

HEAD_NAMES: dict[Heads, tuple[str | None, str | None]] = {
    "tsp": ("fc1", "fc2"),
    "tac": ("fc", None),
    "region": (None, "fc"),
}
"""Module names of the action head and of the temporal-region head, as in the released code."""

NUM_REGIONS = 2
"""Outputs of the temporal-region head: 0 action, 1 no action."""


class HeadOutputs(NamedTuple):
    """What a `TSPModel` gives; a tuple, because DistributedDataParallel looks into those.

    Attributes:
        features: Local clip features, float [B, F].
        action_logits: Float [B, C], or None without an action head.
        region_logits: Float [B, 2] (action, no action), or None without a region head.
    """

    features: torch.Tensor
    action_logits: torch.Tensor | None
    region_logits: torch.Tensor | None


class TSPModel(nn.Module):
    """An encoder and its heads: TSP (both), TAC (action alone) or region alone.

    The encoder is `features`; a single head is `fc`, two heads are `fc1` (action, F x C) and
    `fc2` (temporal region, 2F x 2 on the local feature joined with the global video feature, or
    F x 2 without), as in the released code, so that state dicts fit both ways. The released code
    gives a global video feature to two-headed models only; a region head alone may have one here.

    Head weights are drawn from N(0, 0.01) of torch's global generator, `fc1` before `fc2`; biases
    are 0.

    Args:
        encoder: Maps float clips [B, 3, L, H, W] to [B, F].
        encoder_name: Its name in `tsp_core.model.encoders.ENCODERS`.
        num_classes: Action classes C; of no effect on a region head alone.
        heads: "tsp", "tac" or "region".
        use_gvf: Join the global video feature to the region head's input; no effect on "tac".
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        encoder_name: str,
        num_classes: int,
        heads: Heads,
        use_gvf: bool,
    ) -> None:
        super().__init__()
        if heads != "region" and num_classes < 1:
            raise ValueError(f"num_classes: {num_classes}: an action head needs at least one class")
        self.encoder_name = encoder_name
        self.feature_size: int = feature_size(encoder_name)
        self.num_classes = num_classes
        self.heads: Heads = heads
        self.use_gvf = use_gvf and heads != "tac"
        self.features = encoder
        region_inputs = self.feature_size * (2 if self.use_gvf else 1)
        action_name, region_name = HEAD_NAMES[heads]
        if action_name is not None:
            self.add_module(action_name, _fully_connected(self.feature_size, num_classes))
        if region_name is not None:
            self.add_module(region_name, _fully_connected(region_inputs, NUM_REGIONS))

    @property
    def action_head(self) -> nn.Linear | None:
        """The action head, if there is one."""
        return self._head(HEAD_NAMES[self.heads][0])

    @property
    def region_head(self) -> nn.Linear | None:
        """The temporal-region head, if there is one."""
        return self._head(HEAD_NAMES[self.heads][1])

    def _head(self, name: str | None) -> nn.Linear | None:
        return None if name is None else cast(nn.Linear, self.get_submodule(name))

    def forward(self, clips: torch.Tensor, gvf: torch.Tensor | None = None) -> HeadOutputs:
        """Run the encoder and the heads; under autocast the heads compute in their own precision.

        They are next to nothing of the work, and bf16 logits, of 8 bits, tie.

        Args:
            clips: Float [B, 3, L, H, W], normalised.
            gvf: Global video features, float [B, F], of the clips' videos; needed with `use_gvf`,
                ignored without.

        Raises:
            GvfError: The global video features are missing or of the wrong shape.
        """
        features: torch.Tensor = self.features(clips)
        action, region = self.action_head, self.region_head
        with torch.autocast(features.device.type, enabled=False):
            local = features.to(self._heads_dtype)
            return HeadOutputs(
                features=features,
                action_logits=None if action is None else action(local),
                region_logits=None if region is None else region(self._with_gvf(local, gvf)),
            )

    @property
    def _heads_dtype(self) -> torch.dtype:
        head = self.action_head or self.region_head
        assert head is not None, "every model has one"
        return head.weight.dtype

    def _with_gvf(self, features: torch.Tensor, gvf: torch.Tensor | None) -> torch.Tensor:
        if not self.use_gvf:
            return features
        if gvf is None or gvf.shape != features.shape:
            shape = None if gvf is None else tuple(gvf.shape)
            raise GvfError(
                f"gvf: {shape}: the region head of this model needs one global video feature per "
                f"clip, shape {tuple(features.shape)}; compute them with the same encoder"
            )
        return torch.cat([features, gvf.to(features.dtype)], dim=1)


def _fully_connected(num_inputs: int, num_outputs: int) -> nn.Linear:
    layer = nn.Linear(num_inputs, num_outputs)
    nn.init.normal_(layer.weight, 0, 0.01)
    nn.init.constant_(layer.bias, 0)
    return layer

"""What is known of a checkpoint: written into ours, told from shapes and arguments in others."""

from __future__ import annotations

import argparse
from typing import Any, Literal

from pydantic import Field, ValidationError

from tsp_core.artifacts import Frozen
from tsp_core.config import ClipConfig, EncoderName
from tsp_core.errors import NoHeadsError, WeightsError
from tsp_core.model.encoders import feature_size
from tsp_core.model.files import ParsedWeights
from tsp_core.model.heads import HEAD_NAMES, Heads
from tsp_core.model.identity import WeightsSource

INFO_VERSION = 1
_ACTION_COLUMN, _REGION_COLUMN = "action-label", "temporal-region-label"


class CheckpointInfo(Frozen):
    """What is in a checkpoint and how its clips were made.

    Attributes:
        version: Of this record.
        encoder: Architecture.
        heads: "tsp", "tac" or "region".
        use_gvf: The region head takes the global video feature too.
        num_classes: Action classes C; 0 where a region head alone leaves it unknown.
        classes: Their labels in index order; empty where unknown.
        clip: Clip settings of training; the released ones where unknown.
        gvf_pooling: Pooling of the global video features; None where unknown.
        gvf_stride: Sampled frames between their clips; None where unknown.
        encoder_weights: Identity of the weights that training started from; None where unknown.
        epoch: Epoch after which the checkpoint was taken, from 0; -1 where unknown.
    """

    version: int = INFO_VERSION
    encoder: EncoderName
    heads: Heads
    use_gvf: bool
    num_classes: int = Field(ge=0)
    classes: tuple[str, ...] = ()
    clip: ClipConfig = ClipConfig()
    gvf_pooling: Literal["max", "avg", "none"] | None = None
    gvf_stride: int | None = None
    encoder_weights: str | None = None
    epoch: int = -1


def read_info(parsed: ParsedWeights, encoder: str, source: WeightsSource) -> CheckpointInfo:
    """Describe a checkpoint's content.

    Raises:
        WeightsError: It has no heads, heads of another kind, or a description that this release
            does not know.
    """
    _check_heads(parsed, source)
    written = parsed.rest.get("tsp")
    if written is None:
        return _told_from_shapes(parsed, encoder, source)
    version = written.get("version") if isinstance(written, dict) else None
    if version != INFO_VERSION:
        raise WeightsError(
            f"{source.label}: version {version!r} of the entry 'tsp' is unknown to this release, "
            f"which reads version {INFO_VERSION}; see docs/checkpoints.md"
        )
    try:
        return CheckpointInfo.model_validate(written)
    except ValidationError as error:
        raise WeightsError(f"{source.label}: the entry 'tsp' is damaged: {error}") from None


def released_args(info: CheckpointInfo) -> dict[str, Any]:
    """The entry `args`, with the released code's names for what it and this project both know.

    A plain dictionary: the released code reads it nowhere, and a Namespace would keep PyTorch's
    present default (`weights_only=True`) from loading the file.
    """
    columns = {
        "tsp": [_ACTION_COLUMN, _REGION_COLUMN],
        "tac": [_ACTION_COLUMN],
        "region": [_REGION_COLUMN],
    }
    return {
        "backbone": info.encoder,
        "label_columns": columns[info.heads],
        "clip_len": info.clip.length,
        "frame_rate": info.clip.frame_rate,
    }


def _check_heads(parsed: ParsedWeights, source: WeightsSource) -> None:
    if not parsed.heads:
        raise NoHeadsError(
            f"{source.label}: holds an encoder without heads; name a checkpoint of TSP pretraining"
        )
    known = ({"fc.weight", "fc.bias"}, {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"})
    ranks = {key: value.ndim for key, value in parsed.heads.items()}
    if set(ranks) not in known or any(
        rank != (2 if key.endswith("weight") else 1) for key, rank in ranks.items()
    ):
        raise WeightsError(
            f"{source.label}: heads {sorted(ranks)} are none of a TSP model, which has one layer "
            "'fc' or two, 'fc1' and 'fc2'; choose another checkpoint"
        )


def _told_from_shapes(parsed: ParsedWeights, encoder: str, source: WeightsSource) -> CheckpointInfo:
    args = _arguments(parsed.rest.get("args"))
    heads: Heads = "tsp" if "fc1.weight" in parsed.heads else "tac"
    if heads == "tac" and args.get("label_columns") == [_REGION_COLUMN]:
        heads = "region"
    action, region = HEAD_NAMES[heads]
    use_gvf = region is not None and parsed.heads[f"{region}.weight"].shape[1] == 2 * feature_size(
        encoder
    )
    epoch = parsed.rest.get("epoch")
    return CheckpointInfo.model_validate(
        {
            "encoder": encoder,
            "heads": heads,
            "use_gvf": use_gvf,
            "num_classes": 0 if action is None else parsed.heads[f"{action}.weight"].shape[0],
            "clip": _clip(args),
            "gvf_pooling": _pooling(use_gvf, source),
            "epoch": epoch if isinstance(epoch, int) else -1,
        }
    )


def _pooling(use_gvf: bool, source: WeightsSource) -> str | None:
    if not use_gvf:
        return "none"
    return source.published.gvf if source.published else None


def _arguments(args: Any) -> dict[str, Any]:
    if isinstance(args, argparse.Namespace):
        return vars(args)
    return args if isinstance(args, dict) else {}


def _clip(args: dict[str, Any]) -> ClipConfig:
    """Clip settings by the released code's arguments; its defaults are those of `ClipConfig`."""
    known = {"length": args.get("clip_len"), "frame_rate": args.get("frame_rate")}
    try:
        return ClipConfig.model_validate({k: v for k, v in known.items() if v is not None})
    except ValidationError:
        return ClipConfig()  # another project's arguments under the same names

"""What must hold before training starts; every refusal names the setting and the fix."""

from __future__ import annotations

import difflib
import importlib.util
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tsp_core.config import PretrainConfig
from tsp_core.errors import ConfigError
from tsp_core.training.samplers import ACTION, NO_ACTION

_logger = logging.getLogger(__name__)


def check_settings(pretrain: PretrainConfig) -> None:
    """Refuse settings that cannot train anything.

    Raises:
        ConfigError: All learning rates are 0, or TensorBoard is asked for and not installed.
    """
    if not any((pretrain.stem_lr, pretrain.layers_lr, pretrain.heads_lr)):
        raise ConfigError(
            "pretrain.stem_lr, layers_lr, heads_lr: all are 0, so nothing would be trained; set "
            "one of them"
        )
    if pretrain.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "pretrain.tensorboard: True: TensorBoard is not installed; install it with "
            "`pip install 'tsp-pipeline[tensorboard]'` or set pretrain.tensorboard: false"
        )


def check_clips(clips: pa.Table, pretrain: PretrainConfig, classes: Sequence[str] = ()) -> None:
    """Refuse subsets that cannot train or validate the configured heads; tell odd classes.

    Args:
        clips: Table of the schema CLIPS.
        pretrain: The training configuration.
        classes: Action classes in index order.

    Raises:
        ConfigError: A subset is unknown or has no clips, or lacks action or background clips.
    """
    for key, purpose in (("train_subset", "train"), ("valid_subset", "validate")):
        subset: str = getattr(pretrain, key)
        mine = clips.filter(pc.field("subset") == subset)
        if mine.num_rows == 0:
            known = sorted(str(name) for name in pc.unique(clips["subset"]).to_pylist())
            raise ConfigError(
                f"pretrain.{key}: {subset!r}: the clip index has no such subset; known subsets: "
                f"{', '.join(known) or 'none'}"
            )
        regions = set(mine.filter(pc.field("status") == "ok")["region"].to_pylist())
        _check_regions(regions, key, purpose, pretrain)
    if pretrain.heads != "region" and classes:
        _tell_untrained(clips, pretrain, classes)


def check_device(pretrain: PretrainConfig, device: str, num_devices: int) -> None:
    """Refuse what the device cannot do.

    Args:
        pretrain: The training configuration.
        device: "cpu" or "cuda".
        num_devices: CUDA devices of this machine.

    Raises:
        ConfigError: Synchronised BatchNorm on the CPU, or more processes than GPUs.
    """
    if (
        device == "cpu"
        and pretrain.batch_norm == "sync"
        and pretrain.nodes * pretrain.processes > 1
    ):
        raise ConfigError(
            "pretrain.batch_norm: 'sync': torch synchronises BatchNorm on CUDA devices only; use "
            "'local' or 'frozen', or one process, on the CPU"
        )
    if device == "cuda" and pretrain.processes > num_devices:
        raise ConfigError(
            f"pretrain.processes: {pretrain.processes}: this machine has {num_devices} CUDA "
            "devices; each process needs one"
        )


def _tell_untrained(clips: pa.Table, pretrain: PretrainConfig, classes: Sequence[str]) -> None:
    """Warn of classes that are validated and not trained; some of them may be misspelt."""
    usable = clips.filter((pc.field("status") == "ok") & (pc.field("region") == ACTION))

    def actions(subset: str) -> Counter[str]:
        found: Any = usable.filter(pc.field("subset") == subset)["label_index"].to_pylist()
        return Counter(classes[index] for index in found)

    trained, validated = actions(pretrain.train_subset), actions(pretrain.valid_subset)
    for label in sorted(validated.keys() - trained.keys()):
        close = difflib.get_close_matches(label, list(trained), n=1)
        _logger.warning(
            "pretrain: the class %r has no action to train on, and %d in the subset %r%s",
            *(label, validated[label], pretrain.valid_subset),
            f"; did you mean {close[0]!r}?" if close else "",
        )


def _check_regions(regions: set[Any], key: str, purpose: str, pretrain: PretrainConfig) -> None:
    subset: str = getattr(pretrain, key)
    needed = {
        ACTION: ("action", "annotate actions at least one clip long, or lower clip.length"),
        NO_ACTION: (
            "background",
            "lower annotate.min_background_clips, or train the action head alone with "
            "pretrain.heads: tac",
        ),
    }
    if pretrain.heads == "tac":
        del needed[NO_ACTION]
    for region, (kind, fix) in needed.items():
        if region not in regions:
            raise ConfigError(
                f"pretrain.{key}: {subset!r}: no {kind} segment can hold a clip, and the heads "
                f"{pretrain.heads!r} cannot {purpose} without; {fix}"
            )

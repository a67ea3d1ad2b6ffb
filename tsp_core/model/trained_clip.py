"""The clips that a checkpoint was trained on, read from its file without its tensors."""

from __future__ import annotations

import argparse
import functools
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from tsp_core.config import ClipConfig, EncoderConfig
from tsp_core.errors import ConfigError
from tsp_core.model.checkpoint_info import INFO_VERSION
from tsp_core.model.files import fetch, read_parsed
from tsp_core.model.identity import weights_source

_log = logging.getLogger(__name__)
_RELEASED_NAMES = {"clip_len": "length", "frame_rate": "frame_rate"}


@dataclass(frozen=True, kw_only=True)
class TrainedClip:
    """What a checkpoint says of its clips.

    Attributes:
        settings: Those that it names, by the names of `ClipConfig`: all of them in a checkpoint of
            this project, frames and frame rate in one of the released code.
        is_ours: This project wrote it.
    """

    settings: Mapping[str, Any]
    is_ours: bool

    def difference(self, clip: ClipConfig) -> tuple[str, str]:
        """Write the settings in which a clip differs from training, once for each of the two.

        Returns:
            The clip's and the checkpoint's, as in `("length 16", "length 8")`; empty texts where
            they agree.
        """
        given = clip.model_dump()
        names = [name for name, value in self.settings.items() if given[name] != value]
        return _written(given, names), _written(self.settings, names)


def trained_clip(
    weights: str,
    encoder: str | None = None,
    *,
    sha256_prefix: str | None = None,
    mirror: str | None = None,
    cache_dir: str | None = None,
) -> TrainedClip | None:
    """Read what a checkpoint says of the clips that it was trained on.

    The file is fetched when it is remote. Of a local one only the description is read, in
    milliseconds, unless its SHA-256 is known, and checked; whether its weights can be used is left
    to those who load them.

    Args:
        weights: As of `tsp_core.model.identity`.
        encoder: Name of the encoder; None where the file is to tell.
        sha256_prefix: Expected start of the file's SHA-256.
        mirror: Folder or URI prefix that holds published files under their names.
        cache_dir: Where downloads are kept; default is a folder in the user's cache.

    Returns:
        None where nothing is recorded: Kinetics and drawn weights, bare state dicts.

    Raises:
        WeightsError: There is no such file, or its SHA-256 is not the expected one.
        StorageUnavailableError: The store does not answer.
    """
    if weights == "kinetics" or weights.startswith("random:"):
        return None
    source = weights_source(weights, encoder, sha256_prefix=sha256_prefix, mirror=mirror)
    described = _described(fetch(source, cache_dir=cache_dir))
    return _ours(described.get("tsp")) or _released(described.get("args"))


@functools.lru_cache(maxsize=8)  # of the shards of one run, the first asks; a warning comes once
def check_exported_clip(
    clip: ClipConfig, encoder: EncoderConfig, identity: str, cache_dir: str | None
) -> None:
    """Refuse to export features of other clips than the checkpoint was trained on.

    A checkpoint of another project, the released ones included, may be used on other clips on
    purpose (its own were of the default settings): that is a warning.

    Args:
        clip: As configured.
        encoder: With `export.checkpoint` as its weights.
        identity: What identifies the weights' content.
        cache_dir: Where downloads are kept.

    Raises:
        ConfigError: The checkpoint is of this project and was trained with other clips.
        WeightsError: There is no such checkpoint.
        StorageUnavailableError: The store does not answer.
    """
    del identity  # another file under the same name is looked at again
    trained = trained_clip(
        encoder.weights,
        encoder.name,
        sha256_prefix=encoder.sha256_prefix,
        mirror=encoder.mirror,
        cache_dir=cache_dir,
    )
    configured, its = ("", "") if trained is None else trained.difference(clip)
    if trained is None or not configured:
        return
    what = f"clip: {configured}, but export.checkpoint was trained with {its}"
    if trained.is_ours:
        raise ConfigError(
            f"{what}; set clip as it was trained, or name a checkpoint that was trained so "
            "(`tsp features` computes features of other clips)"
        )
    _log.warning("%s; the features may be worse", what)


def _described(path: Path) -> Mapping[Any, Any]:
    """The entries of a checkpoint; of a damaged file none, as loading it says what is wrong."""
    try:
        if not zipfile.is_zipfile(path):  # as PyTorch wrote before 1.6: it cannot be mapped
            return read_parsed(path).rest
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise
    except Exception:  # the restricted unpickler fails in many ways on damaged files
        return {}
    return content if isinstance(content, Mapping) else {}


def _ours(written: Any) -> TrainedClip | None:
    if not isinstance(written, Mapping) or written.get("version") != INFO_VERSION:
        return None
    try:
        clip = ClipConfig.model_validate(written.get("clip"))
    except ValidationError:
        return None
    return TrainedClip(settings=clip.model_dump(), is_ours=True)


def _released(args: Any) -> TrainedClip | None:
    values = vars(args) if isinstance(args, argparse.Namespace) else args
    if not isinstance(values, Mapping):
        return None
    known = {
        ours: values[theirs]
        for theirs, ours in _RELEASED_NAMES.items()
        if values.get(theirs) is not None
    }
    try:
        clip = ClipConfig.model_validate(known)
    except ValidationError:
        return None  # another project's arguments under the same names
    settings = clip.model_dump(include=set(known))
    return TrainedClip(settings=settings, is_ours=False) if settings else None


def _written(values: Mapping[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name} {values[name]}" for name in names)

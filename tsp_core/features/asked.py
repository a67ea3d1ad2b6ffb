"""What is asked of `extract_features` and `extract_files`, checked before anything is computed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError, field_validator

from tsp_core.config import ClipConfig, FeatureFormat, PositiveInt, Precision, Section
from tsp_core.config.explain import explain
from tsp_core.config.io import parse_config
from tsp_core.errors import ConfigError
from tsp_core.model.trained_clip import trained_clip

_LABEL = "features"
_log = logging.getLogger(__name__)

PathOrUri = str | Path
"""A path or URI."""
Clip = ClipConfig | Mapping[str, Any]
"""What one clip is: all of it, or the settings to take in place of the checkpoint's."""


class Computing(Section):
    """How features are computed; see `extract_files`."""

    checkpoint: str
    encoder: str | None = None
    stride: PositiveInt = 16
    precision: Precision = "fp32"
    format: FeatureFormat = "npy"
    device: str = "auto"
    batch_size: PositiveInt = 16
    truncated: Literal["quarantine", "keep"] = "quarantine"
    mirror: str | None = None
    cache_dir: str | None = None

    @field_validator("checkpoint", "mirror", "cache_dir", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @field_validator("device")
    @classmethod
    def _is_there(cls, value: str) -> str:
        found = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", value)
        if found is None:
            raise ValueError("expected 'auto', 'cpu', 'cuda' or 'cuda:NUMBER'")
        if found[1] and int(found[1]) >= torch.cuda.device_count():
            raise ValueError(f"torch finds {torch.cuda.device_count()} GPUs here; use 'auto'")
        return value


def computing(values: Mapping[str, Any]) -> Computing:
    """Check the arguments of a call.

    Raises:
        ConfigError: Naming each wrong argument and its value.
    """
    try:
        return Computing.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, _LABEL)) from None


def location(name: str, value: object) -> str:
    """Take a path or URI as text.

    Raises:
        ConfigError: It is neither.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text:
        raise ConfigError(f"{_LABEL}: {name}: {value!r}: expected a path or URI")
    return text


def locations(name: str, values: PathOrUri | Sequence[PathOrUri]) -> list[str]:
    """Take one path or URI, or several.

    Raises:
        ConfigError: One is neither.
    """
    if isinstance(values, (str, os.PathLike)):
        return [location(name, values)]
    if not isinstance(values, Iterable):
        raise ConfigError(f"{_LABEL}: {name}: {values!r}: expected paths or URIs")
    return [location(name, value) for value in values]


def chosen_clip(given: Clip | None, asked: Computing) -> ClipConfig:
    """Choose what one clip is: as asked, else as the checkpoint was trained, else as released.

    What is asked for counts; one warning says so when the checkpoint was trained with other clips.

    Raises:
        ConfigError: A setting is wrong.
        WeightsError: There is no such checkpoint.
        StorageUnavailableError: The store of the checkpoint does not answer.
    """
    if given is not None and not isinstance(given, (ClipConfig, Mapping)):
        raise ConfigError(f"{_LABEL}: clip: {given!r}: expected a ClipConfig or a mapping")
    trained = trained_clip(
        asked.checkpoint, asked.encoder, mirror=asked.mirror, cache_dir=asked.cache_dir
    )
    known = {} if trained is None else dict(trained.settings)
    clip = given if isinstance(given, ClipConfig) else _merged(known, given or {})
    if trained is not None:
        mine, its = trained.difference(clip)
        if mine:
            _log.warning(
                "%s: clip: %s, as given; the checkpoint was trained with %s", _LABEL, mine, its
            )
    return clip


def _merged(known: Mapping[str, Any], given: Mapping[str, Any]) -> ClipConfig:
    values = {"root": ".", "clip": {**known, **given}}  # for errors as of a configuration's keys
    return parse_config(values, source=_LABEL).clip

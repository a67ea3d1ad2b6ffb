"""Checkpoints in the released layout, with what one needs to know to use them.

A file is `{"model": state dict, "epoch": ..., "args": ..., "tsp": ...}` plus what training adds
(`optimizer`, `lr_scheduler`, ...). The state dict has the released code's names, so the released
code loads these files and this module loads the released ones. `tsp` holds a `CheckpointInfo`;
for files without it, the same is told from the tensors' shapes and from `args`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tsp_core import storage
from tsp_core.draws import seeded_draws
from tsp_core.errors import StorageError, WeightsError
from tsp_core.model.checkpoint_info import CheckpointInfo, read_info, released_args
from tsp_core.model.files import ParsedWeights, fetch, read_parsed, write_deterministic
from tsp_core.model.heads import TSPModel
from tsp_core.model.identity import PICKLE, WeightsSource, weights_identity, weights_source
from tsp_core.model.weights import check_encoder, encoder_from_state

__all__ = [
    "CheckpointInfo",
    "LoadedCheckpoint",
    "check_weights_file",
    "load_checkpoint",
    "save_checkpoint",
]

_OWN_KEYS = frozenset({"model", "epoch", "args", "tsp"})


@dataclass(frozen=True, kw_only=True)
class LoadedCheckpoint:
    """A model on the CPU in evaluation mode, and what is known of it.

    Attributes:
        model: Encoder and heads.
        info: What it is.
        identity: Equal for equal files; `tsp_core.model.identity.weights_identity`.
        extra: What else the file holds, such as `optimizer`.
    """

    model: TSPModel
    info: CheckpointInfo
    identity: str
    extra: Mapping[str, Any]


def save_checkpoint(
    target: Path,
    model: TSPModel,
    info: CheckpointInfo,
    *,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint atomically; equal content gives equal bytes.

    Args:
        target: Local file.
        model: Not wrapped by DistributedDataParallel.
        info: Describes the model.
        extra: More entries, such as `optimizer`: tensors and plain values only.

    Raises:
        ValueError: `info` does not describe the model, or `extra` has an entry of this layout.
        TypeError: `extra` holds something that `load_checkpoint` would refuse.
    """
    extra = extra or {}
    if taken := _OWN_KEYS & extra.keys():
        raise ValueError(f"extra: {sorted(taken)} are written by save_checkpoint; rename them")
    described = (info.encoder, info.heads, info.use_gvf)
    actual = (model.encoder_name, model.heads, model.use_gvf)
    if described != actual or (info.heads != "region" and info.num_classes != model.num_classes):
        raise ValueError(f"info: {described}, {info.num_classes} does not describe the model")
    content = {
        "model": model.state_dict(),
        "epoch": info.epoch,
        "args": released_args(info),
        "tsp": info.model_dump(mode="json"),
        **extra,
    }
    write_deterministic(target, content)


def check_weights_file(source: WeightsSource, encoder: str) -> None:
    """Find out before anything is computed that a file cannot be used as weights.

    A local file is read as it will be when it is used. Of a remote one only the directory at the
    end of the archive is; one whose SHA-256 is known is checked when it is fetched.

    Args:
        source: A file, or drawn weights, which always can be used.
        encoder: The encoder that it has to be of.

    Raises:
        WeightsError: It is not there, no weights file, damaged, or of another encoder.
        StorageUnavailableError: The store does not answer.
    """
    if source.uri is None:
        return
    if storage.is_local(source.uri):
        check_encoder(read_parsed(fetch(source)), asked=encoder, label=source.label)
        return
    if source.sha256_prefix is not None:
        return
    try:
        looks_right = storage.read_with(source.uri, _is_weights_file)
    except StorageError as error:
        raise WeightsError(f"{source.label}: cannot read: {error}; {source.fix}") from None
    if not looks_right:
        raise WeightsError(
            f"{source.label}: not a weights file, or damaged: it is neither an archive nor a "
            "pickle of PyTorch; name a checkpoint, or fetch it anew"
        )


def _is_weights_file(file: IO[bytes]) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:  # of a file that breaks off, too
        file.seek(0)  # last, as stores read ahead
        return file.read(len(PICKLE)) == PICKLE


def load_checkpoint(
    spec: str,
    *,
    encoder: str | None = None,
    sha256_prefix: str | None = None,
    mirror: str | None = None,
    cache_dir: str | None = None,
) -> LoadedCheckpoint:
    """Load encoder and heads of a checkpoint of this project or of the released code.

    Args:
        spec: Path, URI, or name of a released checkpoint.
        encoder: The encoder it has to have; told from the file by default.
        sha256_prefix: Expected start of the file's SHA-256.
        mirror: Folder or URI prefix that holds released files under their names.
        cache_dir: Where downloads are kept; default is a folder in the user's cache.

    Raises:
        WeightsError: No such checkpoint, damaged, of another encoder, without heads, of an
            unknown version, or with more than data in it.
        StorageUnavailableError: The store does not answer.
    """
    source = weights_source(spec, encoder, sha256_prefix=sha256_prefix, mirror=mirror)
    if source.seed is not None:
        raise WeightsError(f"{source.label}: drawn weights have no heads; name a checkpoint")
    parsed = read_parsed(fetch(source, cache_dir=cache_dir))
    name = check_encoder(parsed, asked=encoder, label=source.label)
    info = read_info(parsed, name, source)
    with seeded_draws(0):  # the heads are drawn, then overwritten
        model = TSPModel(
            encoder_from_state(name, parsed.encoder),
            encoder_name=name,
            num_classes=info.num_classes,
            heads=info.heads,
            use_gvf=info.use_gvf,
        )
    _load_heads(model, parsed, source)
    return LoadedCheckpoint(
        model=model.eval(),
        info=info,
        identity=weights_identity(spec, name, sha256_prefix=sha256_prefix, mirror=mirror),
        extra={key: value for key, value in parsed.rest.items() if key not in _OWN_KEYS},
    )


def _load_heads(model: TSPModel, parsed: ParsedWeights, source: WeightsSource) -> None:
    expected = {k: v.shape for k, v in model.state_dict().items() if not k.startswith("features.")}
    found = {key: value.shape for key, value in parsed.heads.items()}
    if found != expected:
        raise WeightsError(
            f"{source.label}: heads of shapes { {k: tuple(v) for k, v in found.items()} }, "
            f"expected { {k: tuple(v) for k, v in expected.items()} }; choose another checkpoint"
        )
    model.load_state_dict(parsed.heads, strict=False)

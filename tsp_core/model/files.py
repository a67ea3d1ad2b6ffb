"""Weight files: fetched and hash-checked, read without running code, taken apart, written.

Files are read by PyTorch's restricted unpickler (`weights_only=True`), which makes tensors and
plain containers and refuses everything else; of the classes that checkpoints are known to hold,
only `argparse.Namespace` (the released code's `args`) is allowed.
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tsp_core import storage
from tsp_core.errors import StorageError, StorageUnavailableError, WeightsError
from tsp_core.model.identity import WeightsSource, weights_identity
from tsp_core.storage import faults

State = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class ParsedWeights:
    """A weights file, whatever its layout.

    Attributes:
        encoder: State of the encoder: `stem.*`, `layer1.*` to `layer4.*`.
        heads: State of the heads: `fc.*`, or `fc1.*` and `fc2.*`; empty when the file is not a
            TSP checkpoint (a classifier of other classes is left out).
        rest: What else the file holds: `epoch`, `args`, `optimizer`, ...
    """

    encoder: State
    heads: State
    rest: dict[str, Any]


def default_cache_dir() -> Path:
    """The folder in the user's cache for files fetched from remote stores."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tsp"


def fetch(source: WeightsSource, *, cache_dir: str | None = None) -> Path:
    """Give the local path of a weights file, downloading it into the cache if it is remote.

    The SHA-256 is verified, where its start is known, on every call; a damaged copy in the cache
    is fetched anew.

    Raises:
        WeightsError: No such file, its SHA-256 is not the expected one, it may not be read, or
            there is no way to the internet address that it has.
        StorageUnavailableError: The store does not answer; trying again later may help.
    """
    assert source.uri is not None, "drawn weights have no file"
    if storage.is_local(source.uri):
        with _explained(source), faults.translated(source.uri, "read"):
            return _checked(storage.local_path(source.uri), source)
    folder = Path(cache_dir) if cache_dir else default_cache_dir()
    with _explained(source), faults.translated(str(folder), "use the cache"):
        if not _is_public(source):
            return _fetch_remote(source, folder)
        with faults.public(_advice(source)):
            return _fetch_remote(source, folder)


def _checked(path: Path, source: WeightsSource) -> Path:
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"no file {path}"
        raise WeightsError(f"{source.label}: {what}; {source.fix}")
    path.open("rb").close()  # who reads it later would call it damaged
    _verify(path, source)
    return path


def _is_public(source: WeightsSource) -> bool:
    """Whether it is fetched from where it is published; a mirror may come back after a restart."""
    return source.published is not None and source.uri == source.published.url


def _advice(source: WeightsSource) -> str:
    if source.published is None:
        return source.fix
    return (
        f"without internet, put {source.published.filename} into a folder and set `mirror` "
        "(encoder.mirror, --mirror) to it"
    )


def _fetch_remote(source: WeightsSource, cache_dir: Path) -> Path:
    assert source.uri is not None
    key = weights_identity(source.uri, None, sha256_prefix=source.sha256_prefix)
    target = cache_dir / "weights" / f"{key.partition(':')[2]}-{source.filename}"
    if target.is_file() and _wrong_hash(target, source) is None:
        return target
    partial = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        storage.download(source.uri, partial)
        if _wrong_hash(partial, source) is not None:  # damaged on the way, or not what is meant
            storage.download(source.uri, partial)
        _verify(partial, source)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _verify(path: Path, source: WeightsSource) -> None:
    found = _wrong_hash(path, source)
    if found is not None:
        assert source.sha256_prefix is not None
        raise WeightsError(
            f"{source.label}: the file {source.filename} from "
            f"{storage.redact(source.uri or '')} is damaged or another one: its SHA-256 starts "
            f"with {found[: max(8, len(source.sha256_prefix))]}, expected {source.sha256_prefix}; "
            "fetch it anew or correct sha256_prefix"
        )


def _wrong_hash(path: Path, source: WeightsSource) -> str | None:
    """The SHA-256 of a file if it is not the expected one."""
    if source.sha256_prefix is None:
        return None
    found = storage.sha256_of_file(path)
    return None if found.startswith(source.sha256_prefix) else found


@contextmanager
def _explained(source: WeightsSource) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise WeightsError(f"{source.label}: {error}; {source.fix}") from error
    except StorageUnavailableError as error:
        message = f"{source.label}: {error}; {source.fix}"
        if _is_public(source) and faults.is_unreachable(error):  # no retry brings the internet
            raise WeightsError(message) from error
        raise StorageUnavailableError(message) from error


def read_parsed(path: Path) -> ParsedWeights:
    """Read a weights file and tell encoder, heads and the rest apart.

    Layouts: a bare state dict (torchvision, IG-65M), a released checkpoint or one of this project
    (`{"model": {"features.*", "fc*"}, ...}`), each with or without the prefix `module.` that
    DistributedDataParallel puts before all names.

    Raises:
        WeightsError: The file is damaged, holds more than data, or no state dict.
    """
    content = _load(path)
    state, rest = _find_state(content, path)
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    prefix = "features."
    if any(key.startswith(prefix) for key in state):
        encoder = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        heads = {k: v for k, v in state.items() if not k.startswith(prefix)}
    else:
        encoder = {key: value for key, value in state.items() if not key.startswith("fc.")}
        heads = {}
    return ParsedWeights(encoder=encoder, heads=heads, rest=rest)


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # the restricted unpickler fails in many ways on damaged files
        raise WeightsError(
            f"{path}: refused: not a weights file, damaged, or with objects other than tensors "
            "and plain values in it, which could run code; fetch it anew or save its state dict "
            "alone"
        ) from error


def _find_state(content: Any, path: Path) -> tuple[State, dict[str, Any]]:
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected a state dict")
    name = next((k for k in ("model", "state_dict") if isinstance(content.get(k), Mapping)), None)
    state = content if name is None else content[name]
    rest = {} if name is None else {str(k): v for k, v in content.items() if k != name}
    wrong = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if wrong or not state or not all(isinstance(key, str) for key in state):
        raise WeightsError(
            f"{path}: holds no state dict (found the keys {list(state)[:5]}); expected tensors by "
            "name, alone or under the key 'model'"
        )
    return dict(state), rest


def write_deterministic(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file for `torch.load(weights_only=True)`: equal content gives equal bytes.

    Tensors are written whole and contiguous, on the CPU; mappings as plain dictionaries. The
    file appears under its name when it is complete.

    Args:
        path: Local file to write.
        content: Tensors, numbers, strings, None, and dicts, lists and tuples of these.

    Raises:
        TypeError: Something else is in it; the message says where.
    """
    canonical = _canonical(content, "content")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with aside.open("wb") as file:  # of a path, torch.save would write its name into the file
            torch.save(canonical, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _canonical(value: Any, where: str) -> Any:
    """Copy plain values so that pickling them depends on their content alone.

    Pickle writes an object that it meets again as a reference, so two equal values pickle
    differently when one shares strings or containers and the other does not: strings are
    interned, containers made anew, and no tensor shares its storage.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if type(value) in (dict, OrderedDict):
        return {
            _canonical(key, where): _canonical(item, f"{where}[{key!r}]")
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(_canonical(item, f"{where}[{i}]") for i, item in enumerate(value))
    if type(value) is str:
        return sys.intern(value)
    if value is None or type(value) in (bool, int, float):
        return value
    raise TypeError(
        f"{where}: a {type(value).__module__}.{type(value).__name__} cannot be kept in a "
        "checkpoint; use tensors, numbers, strings, dicts, lists and tuples"
    )

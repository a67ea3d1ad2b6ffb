"""Encoders with weights: drawn from a seed, published, or from any file that fits.

`load_encoder` is what the stages call; `open_encoder` can tell the architecture from the file.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from tsp_core import extensions
from tsp_core.config import EncoderConfig
from tsp_core.draws import seeded_draws
from tsp_core.errors import WeightsError
from tsp_core.model.encoders import ENCODERS, build_encoder, encoder_spec
from tsp_core.model.files import ParsedWeights, State, fetch, read_parsed
from tsp_core.model.identity import WeightsSource, weights_identity, weights_source

_COUNTER = ".num_batches_tracked"  # absent from old files; of no effect with a fixed momentum


@dataclass(frozen=True, kw_only=True)
class LoadedEncoder:
    """An encoder on the CPU in evaluation mode, and what its weights are.

    Attributes:
        encoder: Maps float clips [B, 3, L, H, W] to features [B, F].
        name: Its architecture.
        feature_size: F.
        identity: Equal for equal weights; `tsp_core.model.identity.weights_identity`.
        description: The weights, for people.
    """

    encoder: nn.Module
    name: str
    feature_size: int
    identity: str
    description: str


def load_encoder(encoder: EncoderConfig, *, cache_dir: str | None = None) -> LoadedEncoder:
    """Build the configured encoder with its initial weights.

    Args:
        encoder: Architecture, weights, expected hash, mirror.
        cache_dir: Where downloads are kept; default is a folder in the user's cache.

    Raises:
        WeightsError: The weights are not there, damaged, of another encoder, or not only data.
        StorageUnavailableError: The store does not answer.
    """
    return open_encoder(
        encoder.weights,
        name=encoder.name,
        sha256_prefix=encoder.sha256_prefix,
        mirror=encoder.mirror,
        cache_dir=cache_dir,
    )


def open_encoder(
    weights: str,
    *,
    name: str | None = None,
    sha256_prefix: str | None = None,
    mirror: str | None = None,
    cache_dir: str | None = None,
) -> LoadedEncoder:
    """Load an encoder from any weights, telling its architecture from the file if none is named.

    Arguments and errors as of `load_encoder`; `name` is needed for 'kinetics' and 'random:SEED'.
    """
    source = weights_source(weights, name, sha256_prefix=sha256_prefix, mirror=mirror)
    if source.seed is None:
        parsed = read_parsed(fetch(source, cache_dir=cache_dir))
        found = check_encoder(parsed, asked=name, label=source.label)
        encoder = encoder_from_state(found, parsed.encoder)
    else:
        assert name is not None, "weights_source refuses drawn weights without an encoder"
        found, encoder = name, _drawn(name, source.seed)
    return LoadedEncoder(
        encoder=encoder.eval(),
        name=found,
        feature_size=encoder_spec(found).feature_size,
        identity=weights_identity(weights, found, sha256_prefix=sha256_prefix, mirror=mirror),
        description=_describe(source),
    )


def detect_encoder(state: Mapping[str, torch.Tensor]) -> str | None:
    """Name the encoder whose tensors have exactly these names and shapes, or None."""
    extensions.load_extensions(extensions.from_environment())
    shapes = _shapes(state)
    return next((name for name in ENCODERS if _expected_shapes(name) == shapes), None)


def check_encoder(parsed: ParsedWeights, *, asked: str | None, label: str) -> str:
    """Name the encoder of a weights file, which must be the one that was asked for, if any was.

    Raises:
        WeightsError: It is another encoder's or none's, or a number in it is not finite; the
            message says what the file looks like.
    """
    state = parsed.encoder
    found = detect_encoder(state)
    if found is None:
        raise WeightsError(f"{label}: {_unknown(parsed, asked)}")
    if asked is not None and found != asked:
        raise WeightsError(
            f"{label}: holds the weights of {found}, asked for {asked}; set the encoder to "
            f"{found!r} or choose other weights"
        )
    wrong = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if wrong:
        raise WeightsError(f"{label}: numbers that are not finite in {wrong[0]}; fetch it anew")
    return found


def _unknown(parsed: ParsedWeights, asked: str | None) -> str:
    """Say what a file is that is no known encoder's."""
    info = parsed.rest.get("tsp")
    named = info.get("encoder") if isinstance(info, dict) else None
    if isinstance(named, str) and named not in ENCODERS:
        return (
            f"a checkpoint of {named!r}, an encoder that an extension adds; name the module that "
            f"registers it (`extensions` of a configuration, --extension or {extensions.VARIABLE})"
        )
    state = parsed.encoder
    closest = asked or max(ENCODERS, key=lambda name: _num_equal(state, name))
    difference = _difference(state, closest)
    return f"not the weights of {closest}: {difference}; choose other weights"


def encoder_from_state(name: str, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build an encoder that has the given state.

    The project's own are built without drawing weights first; those of extensions may hold tensors
    that are not in the state.
    """
    with torch.device("meta") if name in extensions.ENCODERS.builtin else seeded_draws(0):
        encoder = build_encoder(name)
    complete: State = {
        key: torch.zeros((), dtype=torch.int64) if key.endswith(_COUNTER) else value
        for key, value in encoder.state_dict().items()
    }
    complete |= {k: value.to(complete[k].dtype) for k, value in state.items() if k in complete}
    encoder.load_state_dict(complete, strict=True, assign=True)
    return encoder


def _drawn(name: str, seed: int) -> nn.Module:
    """Draw weights as after `torch.manual_seed(seed)`, leaving the global generator alone."""
    with seeded_draws(seed):
        return build_encoder(name)


def _describe(source: WeightsSource) -> str:
    if source.seed is not None:
        return f"random weights, seed {source.seed}"
    about = f" ({source.published.about})" if source.published else ""
    return f"{source.filename}{about}"


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {k: tuple(value.shape) for k, value in state.items() if not k.endswith(_COUNTER)}


@functools.cache
def _expected_shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return _shapes(build_encoder(name).state_dict())


def _num_equal(state: Mapping[str, torch.Tensor], name: str) -> int:
    return len(_shapes(state).items() & _expected_shapes(name).items())


def _difference(state: Mapping[str, torch.Tensor], name: str) -> str:
    found, expected = _shapes(state), _expected_shapes(name)
    missing = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    other = [
        f"{key} has shape {found[key]}, expected {expected[key]}"
        for key in expected
        if key in found and found[key] != expected[key]
    ]
    parts = [
        f"{len(missing)} missing ({', '.join(missing[:2])}, ...)" if missing else "",
        f"{len(unknown)} unknown ({', '.join(unknown[:2])}, ...)" if unknown else "",
        "; ".join(other[:2]),
    ]
    return "; ".join(part for part in parts if part)

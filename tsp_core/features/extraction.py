"""Features of whole videos: decoding threads feed the encoder.

PyAV and torch release the interpreter lock, so a thread decodes a video's next batches, and starts
their way to the GPU, while the encoder works on this one. At most four batches of clips per video
are in memory, whatever its length. To keep a GPU busy, call `Extractor.extract` from several
threads: each brings the decoding thread of its own video, and all share the encoder.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tsp_core.config import ClipConfig, EncoderConfig, Precision, RuntimeConfig
from tsp_core.errors import ConfigError, FeaturesError
from tsp_core.features.prefetch import Prefetched
from tsp_core.features.rows import FeatureRows
from tsp_core.features.transfer import HostFeatures, sent_to_device, sent_to_host
from tsp_core.model.inference import forward_features, prepare_for_inference
from tsp_core.model.weights import load_encoder
from tsp_core.video.clips import iter_clip_batches
from tsp_core.video.files import local_video
from tsp_core.video.sampling import ClipGrid, FrameTimeline, clip_grid, timeline_from_row
from tsp_core.video.sandbox import DecodingLimits

_BATCHES_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class VideoFeatures:
    """Features of the clips of one video: float32 [N, F], and the grid of the N clips."""

    features: NDArray[np.float32]
    grid: ClipGrid


class Extractor:
    """Runs one encoder over whole videos; safe to share between threads.

    Args:
        encoder: Maps float clips [B, 3, L, H, W] to features [B, F]; it stays as it is.
        feature_size: F.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        precision: Arithmetic of the encoder.
        batch_size: Clips per forward pass; the features do not depend on it beyond rounding.
        compiled: Compile the encoder on a GPU: a minute at first, then more clips per second.
        limits: Decode in worker processes with these; None decodes in this one.

    Raises:
        ConfigError: There is no GPU, or the precision needs one.
    """

    def __init__(
        self,
        encoder: nn.Module,
        feature_size: int,
        *,
        device: str = "auto",
        precision: Precision = "fp32",
        batch_size: int = 16,
        compiled: bool = False,
        limits: DecodingLimits | None = None,
    ) -> None:
        self.feature_size = feature_size
        self._limits, self._precision = limits, precision
        self._encoder = prepare_for_inference(
            encoder, device=resolve_device(device), precision=precision, compiled=compiled
        )
        self._batch_size = batch_size

    def extract(
        self,
        path: Path,
        timeline: FrameTimeline,
        rotation_degrees: int,
        clip: ClipConfig,
        stride: int,
        *,
        name: str | None = None,
    ) -> VideoFeatures:
        """Compute the features of all clips of a video file.

        Args:
            path: Local file.
            timeline: Its frames, as measured at ingest.
            rotation_degrees: Counter-clockwise turn that makes the picture upright.
            clip: What one clip is.
            stride: Sampled frames between the starts of clips.
            name: What messages call the video; by default the file's name.

        Raises:
            VideoError: The file cannot be decoded, or is not what the timeline says.
            FeaturesError: A feature is not finite, or of another size than F.
        """
        grid = clip_grid(timeline, clip, stride)
        features = np.empty((len(grid), self.feature_size), dtype=np.float32)
        decoded = iter_clip_batches(
            path,
            timeline,
            rotation_degrees,
            clip,
            grid,
            self._batch_size,
            limits=self._limits,
        )
        sent = sent_to_device(decoded, self._encoder.device)
        coming: deque[tuple[int, HostFeatures]] = deque()
        with Prefetched(sent, size=_BATCHES_AHEAD) as batches:
            for batch in batches:
                found = forward_features(self._encoder, batch.clips())
                self._refuse_other_shape(found)
                coming.append((batch.first_index, sent_to_host(found)))
                if len(coming) > 1:  # the GPU has its next batch before this one is waited for
                    _store(features, *coming.popleft())
        for first_index, last in coming:
            _store(features, first_index, last)
        self._refuse_not_finite(features, name or path.name)
        return VideoFeatures(features=features, grid=grid)

    def _refuse_other_shape(self, found: torch.Tensor) -> None:
        if found.shape[1:] != (self.feature_size,):
            raise FeaturesError(
                f"the encoder gives features of shape {tuple(found.shape[1:])} per clip, but its "
                f"EncoderSpec says feature_size={self.feature_size}; correct it in the extension"
            )

    def extract_row(
        self, row: Mapping[str, Any], clip: ClipConfig, stride: int, *, cache_dir: str | None = None
    ) -> FeatureRows:
        """Compute the features of a video given by a row of the videos table.

        Args:
            row: The row as a dictionary; a remote file is fetched into the cache.
            clip: What one clip is.
            stride: Sampled frames between the starts of clips.
            cache_dir: Local folder for remote videos.

        Raises:
            VideoError: The file cannot be fetched or decoded, or changed since ingest.
            FeaturesError: A feature is not finite.
            StorageUnavailableError: The store does not answer now.
        """
        timeline = timeline_from_row(row)
        with local_video(row["uri"], row["content_hash"], cache_dir) as path:
            found = self.extract(
                path, timeline, row["rotation_degrees"], clip, stride, name=row["video"]
            )
        return FeatureRows(
            video=row["video"],
            content_hash=row["content_hash"],
            features=found.features,
            starts_seconds=found.grid.starts_seconds,
            ends_seconds=found.grid.ends_seconds,
            is_padded=found.grid.is_padded,
        )

    def _refuse_not_finite(self, features: NDArray[np.float32], name: str) -> None:
        finite = np.isfinite(features).all(axis=1, keepdims=True).ravel()
        if not finite.all():
            raise FeaturesError(
                f"{name!r}: the features of {np.sum(~finite)} of {len(finite)} clips are not "
                f"finite in {self._precision} (the first is clip {int(np.argmin(finite))}); use "
                "fp32 or bf16 (gvf.precision, export.precision, --precision), or other weights"
            )


def _store(target: NDArray[np.float32], first_index: int, coming: HostFeatures) -> None:
    found = coming.wait()
    target[first_index : first_index + len(found)] = found


def resolve_device(device: str) -> torch.device:
    """Turn "auto", "cpu" or "cuda" into a device.

    Raises:
        ConfigError: "cuda" where there is none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: 'cuda', but torch finds no GPU here; use 'auto' or 'cpu'")
    return torch.device(device)


_shared: dict[tuple[object, ...], Extractor] = {}
_shared_lock = threading.Lock()


def shared_extractor(
    encoder: EncoderConfig,
    *,
    identity: str,
    runtime: RuntimeConfig,
    precision: Precision,
    batch_size: int,
) -> Extractor:
    """Return this process's extractor for an encoder, loading the weights on first use.

    Tasks that run in threads of one process share it; only the latest one is kept.

    Args:
        encoder: Architecture and weights.
        identity: What identifies the weights' content.
        runtime: Device, cache and the decoder's limits.
        precision: Arithmetic of the encoder.
        batch_size: Clips per forward pass.

    Raises:
        WeightsError: The weights cannot be had or do not fit.
    """
    limits = DecodingLimits.of(runtime)
    key = (encoder, identity, runtime.device, runtime.compile, precision, batch_size, limits)
    with _shared_lock:
        if key not in _shared:
            loaded = load_encoder(encoder, cache_dir=runtime.cache_dir)
            _shared.clear()
            _shared[key] = Extractor(
                loaded.encoder,
                loaded.feature_size,
                device=runtime.device,
                precision=precision,
                batch_size=batch_size,
                compiled=runtime.compile,
                limits=limits,
            )
        return _shared[key]

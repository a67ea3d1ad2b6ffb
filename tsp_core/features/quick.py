"""Features of any video files, without a dataset, a configuration or a flow: `tsp features`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tsp_core.config import ClipConfig, EncoderConfig, Precision
from tsp_core.features.asked import (
    Clip,
    Computing,
    PathOrUri,
    chosen_clip,
    computing,
    location,
    locations,
)
from tsp_core.features.extraction import Extractor
from tsp_core.features.given import given_videos, video_name
from tsp_core.features.loose import LIMITS, FileProgress, Work, measured, write_features
from tsp_core.features.loose import ExtractionReport as ExtractionReport
from tsp_core.features.manifest import FeatureSource
from tsp_core.features.rows import FeatureRows
from tsp_core.model.weights import LoadedEncoder, open_encoder


def extract_features(
    video: PathOrUri,
    *,
    checkpoint: PathOrUri = "kinetics",
    encoder: str | None = None,
    clip: Clip | None = None,
    stride: int = 16,
    precision: Precision = "fp32",
    device: str = "auto",
    batch_size: int = 16,
    truncated: Literal["quarantine", "keep"] = "quarantine",
    mirror: PathOrUri | None = None,
    cache_dir: PathOrUri | None = None,
) -> FeatureRows:
    """Compute the features of one video; nothing is written.

    The video is decoded in worker processes with limits, so that a bad one is an error and no more.

    Args:
        video: Path or URI.
        checkpoint: As of `extract_files`, and all that follow.
        encoder: Name of the encoder.
        clip: What one clip is.
        stride: Sampled frames between the starts of clips.
        precision: Arithmetic of the encoder.
        device: "auto", "cpu", "cuda" or "cuda:NUMBER".
        batch_size: Clips per forward pass.
        truncated: What becomes of a file that breaks off: nothing, or its frames are used.
        mirror: Folder or URI prefix with published weight files.
        cache_dir: Local folder for what is fetched from remote stores.

    Returns:
        Features float32 [N, F] of N clips in the order of time, with the clips' times in seconds.

    Raises:
        VideoError: The video cannot be used.
        WeightsError: The weights cannot be had, or fit another encoder.
        ConfigError: An argument is wrong, there is no such device, or the precision does not work
            on it.
    """
    uri = location("video", video)
    values = {"checkpoint": checkpoint, "encoder": encoder, "stride": stride}
    values |= {"precision": precision, "device": device, "batch_size": batch_size}
    values |= {"truncated": truncated, "mirror": mirror, "cache_dir": cache_dir}
    asked = computing(values)
    chosen = chosen_clip(clip, asked)
    extractor = _extractor(_opened(asked), asked)
    row = measured(video_name(uri), uri, asked)
    return extractor.extract_row(row, chosen, asked.stride, cache_dir=asked.cache_dir)


def extract_files(
    videos: PathOrUri | Sequence[PathOrUri],
    *,
    checkpoint: PathOrUri,
    out: PathOrUri,
    encoder: str | None = None,
    clip: Clip | None = None,
    stride: int = 16,
    precision: Precision = "fp32",
    format: str = "npy",
    device: str = "auto",
    batch_size: int = 16,
    truncated: Literal["quarantine", "keep"] = "quarantine",
    mirror: PathOrUri | None = None,
    cache_dir: PathOrUri | None = None,
    progress: FileProgress | None = None,
) -> ExtractionReport:
    """Compute the features of video files and write them with a manifest and exact times.

    A file that cannot be used is reported and the others go on; where none can, nothing is
    written. A video's name is its file's name without the ending; of several files with one name,
    in the order given, the first that can be used is.

    Args:
        videos: Paths or URIs, or a single one: files, folders with all videos below them, glob
            patterns.
        checkpoint: Path or URI of a checkpoint or weights file, the name of a released checkpoint,
            'kinetics', or 'random:SEED'.
        out: Folder or URI prefix. Features of the same settings that it holds stay, those of the
            videos given are replaced.
        encoder: Name of the encoder; by default it is told from the checkpoint, and is that of a
            configuration (r2plus1d_34) for 'kinetics'. 'random:SEED' needs a name.
        clip: What one clip is. By default as the checkpoint was trained, and the released settings
            where it does not say; a mapping, such as `{"frame_rate": 30}`, replaces some of these.
            A warning tells when it differs from training.
        stride: Sampled frames between the starts of clips.
        precision: Arithmetic of the encoder.
        format: File format.
        device: "auto", "cpu", "cuda" or "cuda:NUMBER".
        batch_size: Clips per forward pass.
        truncated: What becomes of a file that breaks off: nothing, or its frames are used.
        mirror: Folder or URI prefix with published weight files.
        cache_dir: Local folder for what is fetched from remote stores.
        progress: Called after each video.

    Raises:
        WeightsError: The weights cannot be had, or fit another encoder.
        ConfigError: An argument is wrong, there is no such device, the precision does not work on
            it, a folder or pattern has no videos, or `out` holds features of other settings.
        StorageError: The files cannot be written, or a folder of videos not be listed.
        StorageUnavailableError: A store does not answer.
    """
    uris, to = locations("videos", videos), location("out", out)
    values = {"checkpoint": checkpoint, "encoder": encoder, "stride": stride, "format": format}
    values |= {"precision": precision, "device": device, "batch_size": batch_size}
    values |= {"truncated": truncated, "mirror": mirror, "cache_dir": cache_dir}
    asked = computing(values)
    files = given_videos(uris)
    return write_features(files, _work(asked, chosen_clip(clip, asked)), to, progress)


def _work(asked: Computing, clip: ClipConfig) -> Work:
    loaded = _opened(asked)
    source = FeatureSource(
        encoder=loaded.name,
        feature_size=loaded.feature_size,
        checkpoint=loaded.identity,
        clip=clip,
        stride=asked.stride,
        precision=asked.precision,
    )
    return Work(extractor=_extractor(loaded, asked), source=source, asked=asked)


def _opened(asked: Computing) -> LoadedEncoder:
    """Open an encoder; of those that Kinetics weights are published for, a configuration's."""
    is_default = asked.encoder is None and asked.checkpoint == "kinetics"
    name = EncoderConfig().name if is_default else asked.encoder
    return open_encoder(asked.checkpoint, name=name, mirror=asked.mirror, cache_dir=asked.cache_dir)


def _extractor(loaded: LoadedEncoder, asked: Computing) -> Extractor:
    """Decode in worker processes with limits, so that a bad video is an error and no more."""
    return Extractor(
        loaded.encoder,
        loaded.feature_size,
        device=asked.device,
        precision=asked.precision,
        batch_size=asked.batch_size,
        limits=LIMITS,
    )

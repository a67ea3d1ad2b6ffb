"""Features of any video files, without a dataset, a configuration or a flow: `tsp features`."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsp_core import storage
from tsp_core.config import ClipConfig, Precision, RuntimeConfig
from tsp_core.errors import VideoError
from tsp_core.features.extraction import Extractor
from tsp_core.features.folder import FeatureFolder
from tsp_core.features.manifest import FeatureSource, Quarantined
from tsp_core.features.rows import FeatureRows, facts_from_row
from tsp_core.model.weights import open_encoder
from tsp_core.video.files import file_name, local_video, validate_video_name
from tsp_core.video.probe import probe
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed

_LIMITS = DecodingLimits.of(RuntimeConfig())

FileProgress = Callable[[int, int, str], None]
"""Called with the videos done, all videos, and the name of the one that was just finished."""


@dataclass(frozen=True, kw_only=True)
class ExtractionReport:
    """What `extract_files` did.

    Attributes:
        source: Encoder, weights, clip and stride of the features.
        out: Where the files are.
        files: Their names below it.
        videos: Rows of each video that has features.
        quarantined: Why the others have none.
    """

    source: FeatureSource
    out: str
    files: tuple[str, ...]
    videos: Mapping[str, int]
    quarantined: Mapping[str, Quarantined]


def extract_features(
    video: str | Path,
    *,
    checkpoint: str = "kinetics",
    encoder: str | None = None,
    clip: ClipConfig | None = None,
    stride: int = 16,
    precision: Precision = "fp32",
    device: str = "auto",
    batch_size: int = 16,
    mirror: str | None = None,
    cache_dir: str | None = None,
) -> FeatureRows:
    """Compute the features of one video; nothing is written.

    Args:
        video: Path or URI.
        checkpoint: As of `extract_files`.
        encoder: Name of the encoder; by default it is told from the checkpoint.
        clip: What one clip is; the released settings by default.
        stride: Sampled frames between the starts of clips.
        precision: Arithmetic of the encoder.
        device: "auto", "cpu" or "cuda".
        batch_size: Clips per forward pass.
        mirror: Folder or URI prefix with published weight files.
        cache_dir: Local folder for what is fetched from remote stores.

    Returns:
        Features float32 [N, F] of N clips in the order of time, with the clips' times in seconds.

    Raises:
        VideoError: The video cannot be used.
        WeightsError: The weights cannot be had, or fit another encoder.
        ConfigError: There is no such device, or the precision does not work on it.
    """
    loaded = open_encoder(checkpoint, name=encoder, mirror=mirror, cache_dir=cache_dir)
    extractor = Extractor(
        loaded.encoder,
        loaded.feature_size,
        device=device,
        precision=precision,
        batch_size=batch_size,
    )
    uri = str(video)
    row = _measured(posixpath.splitext(posixpath.basename(uri))[0], uri, cache_dir)
    return extractor.extract_row(row, clip or ClipConfig(), stride, cache_dir=cache_dir)


def extract_files(
    videos: Sequence[str],
    *,
    checkpoint: str,
    out: str,
    encoder: str | None = None,
    clip: ClipConfig | None = None,
    stride: int = 16,
    precision: Precision = "fp32",
    format: str = "npy",
    device: str = "auto",
    batch_size: int = 16,
    mirror: str | None = None,
    cache_dir: str | None = None,
    progress: FileProgress | None = None,
) -> ExtractionReport:
    """Compute the features of video files and write them with a manifest and exact times.

    A file that cannot be used is reported and the others go on. A video's name is its file's name
    without the ending.

    Args:
        videos: Paths or URIs.
        checkpoint: Path or URI of a checkpoint or weights file, the name of a released checkpoint,
            'kinetics', or 'random:SEED'.
        out: Folder or URI prefix; files there are replaced.
        encoder: Name of the encoder; by default it is told from the checkpoint.
        clip: What one clip is; the released settings by default.
        stride: Sampled frames between the starts of clips.
        precision: Arithmetic of the encoder.
        format: File format.
        device: "auto", "cpu" or "cuda".
        batch_size: Clips per forward pass.
        mirror: Folder or URI prefix with published weight files.
        cache_dir: Local folder for what is fetched from remote stores.
        progress: Called after each video.

    Raises:
        WeightsError: The weights cannot be had, or fit another encoder.
        ConfigError: There is no such device, or the precision does not work on it.
        StorageError: The files cannot be written.
    """
    clip = clip or ClipConfig()
    loaded = open_encoder(checkpoint, name=encoder, mirror=mirror, cache_dir=cache_dir)
    extractor = Extractor(
        loaded.encoder,
        loaded.feature_size,
        device=device,
        precision=precision,
        batch_size=batch_size,
        limits=_LIMITS,
    )
    source = FeatureSource(
        encoder=loaded.name,
        feature_size=loaded.feature_size,
        checkpoint=loaded.identity,
        clip=clip,
        stride=stride,
        precision=precision,
    )
    work = _Work(extractor=extractor, source=source, cache_dir=cache_dir, progress=progress)
    return _write(videos, work, format, out)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is done to each video, and who wants to know."""

    extractor: Extractor
    source: FeatureSource
    cache_dir: str | None
    progress: FileProgress | None


def _write(videos: Sequence[str], work: _Work, format: str, out: str) -> ExtractionReport:
    """Compute the features of all videos aside, then move the files to where they belong."""
    named, quarantined = _named(videos)
    done: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="tsp-features-") as temporary:
        folder = FeatureFolder(Path(temporary), work.source, {format: ""})
        for count, (name, uri) in enumerate(sorted(named.items()), start=1):
            try:
                done[name] = _extract(name, uri, folder, work)
            except VideoError as error:
                quarantined[name] = Quarantined(code=error.code, reason=error.reason)
            if work.progress is not None:
                work.progress(count, len(named), name)
        files = folder.close(quarantined)
        for relative, path in files.items():
            storage.upload(path, storage.join(out, relative))
    return ExtractionReport(
        source=work.source, out=out, files=tuple(files), videos=done, quarantined=quarantined
    )


def _extract(name: str, uri: str, folder: FeatureFolder, work: _Work) -> int:
    """Measure a video and write its features; returns the number of rows."""
    row = _measured(name, uri, work.cache_dir)
    rows = work.extractor.extract_row(
        row, work.source.clip, work.source.stride, cache_dir=work.cache_dir
    )
    folder.write(rows, facts_from_row(row))
    return len(rows.features)


def _measured(name: str, uri: str, cache_dir: str | None) -> dict[str, Any]:
    """Measure a video by decoding it: a row of the videos table."""
    with local_video(uri, None, cache_dir) as path:
        found = run_sandboxed(probe, path, _LIMITS, max_pixels=_LIMITS.max_pixels(path))
        return {**found.as_row(), "video": name, "uri": uri}


def _named(videos: Sequence[str]) -> tuple[dict[str, str], dict[str, Quarantined]]:
    """Name each video after its file; a second one of the same name is refused."""
    named: dict[str, str] = {}
    refused: dict[str, Quarantined] = {}
    for uri in videos:
        name = posixpath.splitext(file_name(uri))[0]
        try:
            validate_video_name(name)
            if named.get(name, uri) != uri:
                raise VideoError(
                    "duplicate_name", f"another file is called {name!r} too; rename one of them"
                )
        except VideoError as error:
            shown = "/".join(storage.redact(uri).rstrip("/").split("/")[-2:])  # no absolute path
            refused[shown] = Quarantined(code=error.code, reason=error.reason)
        else:
            named[name] = uri
    return named, refused

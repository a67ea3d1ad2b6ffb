"""Features of loose video files: computed one by one aside, then moved to where they belong."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsp_core import storage
from tsp_core.config import RuntimeConfig
from tsp_core.errors import StorageError, StorageUnavailableError, VideoError
from tsp_core.features.asked import Computing
from tsp_core.features.extraction import Extractor
from tsp_core.features.folder import FeatureFolder
from tsp_core.features.formats import find_format
from tsp_core.features.given import Given
from tsp_core.features.left_out import LeftOut, LeftOuts
from tsp_core.features.manifest import MANIFEST, FeatureSource
from tsp_core.features.rows import facts_from_row
from tsp_core.features.target import add_to_present, present, writable
from tsp_core.video.files import file_name, local_video
from tsp_core.video.folders import is_broken_link
from tsp_core.video.probe import probe
from tsp_core.video.sandbox import DecodingLimits, run_sandboxed
from tsp_core.video.trouble import MachineTroubleError, patiently

LIMITS = DecodingLimits.of(RuntimeConfig())
"""Of decoding in worker processes, so that a bad video is an error and no more."""

FileProgress = Callable[[int, int, str], None]
"""Called with the videos done, all videos, and the name of the one that was just finished."""


@dataclass(frozen=True, kw_only=True)
class ExtractionReport:
    """What `extract_files` did.

    Attributes:
        source: Encoder, weights, clip and stride of the features.
        out: Where the files are.
        files: Their names below it; none where no video has features.
        videos: Rows of each video that has features.
        quarantined: Which files are left out, and why; by the video's name, or the end of the
            file's path where several have this name.
    """

    source: FeatureSource
    out: str
    files: tuple[str, ...]
    videos: Mapping[str, int]
    quarantined: Mapping[str, LeftOut]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is done to each video.

    Attributes:
        extractor: Computes the features.
        source: What the manifest says of them.
        asked: The arguments of the call.
    """

    extractor: Extractor
    source: FeatureSource
    asked: Computing


def write_features(
    videos: Sequence[Given], work: Work, out: str, progress: FileProgress | None
) -> ExtractionReport:
    """Compute the features of all videos aside, then move the files to where they belong.

    Args:
        videos: The files, as of `given_videos`.
        work: What is done to each.
        out: Folder or URI prefix; where no video has features, nothing is left there that was not
            there before.
        progress: Called after each name.

    Raises:
        ConfigError: The folder holds features of other settings.
        StorageError: The files cannot be written.
        StorageUnavailableError: The store of the files does not answer.
    """
    left_out = LeftOuts(videos)
    by_name: dict[str, list[Given]] = {}
    for video in videos:
        if video.refused is None:
            by_name.setdefault(video.name, []).append(video)
        else:
            left_out.add(video, video.refused.code, video.refused.reason)
    format = work.asked.format
    layouts = {format: find_format(format).layout}
    done: dict[str, int] = {}
    with writable(out), tempfile.TemporaryDirectory(prefix="tsp-features-") as temporary:
        present(out, work.source, layouts, by_name)
        with FeatureFolder(Path(temporary), work.source, {format: ""}) as folder:
            extraction = _Extraction(work, folder, left_out)
            for count, (name, those) in enumerate(sorted(by_name.items()), start=1):
                rows = extraction.first_good(those)
                if rows is not None:
                    done[name] = rows
                if progress is not None:
                    progress(count, len(by_name), name)
            files = folder.close(left_out.for_manifest)
        if done:
            before = present(out, work.source, layouts, done)  # again: hours may have passed
            if before is not None:
                add_to_present(Path(temporary), before)
            _move(files, out)
    return ExtractionReport(
        source=work.source,
        out=out,
        files=tuple(files) if done else (),
        videos=done,
        quarantined=left_out.for_people,
    )


def _move(files: Mapping[str, Path], out: str) -> None:
    """Upload the files, the manifest last."""
    for relative in sorted(files, key=lambda name: (name == MANIFEST, name)):
        storage.upload(files[relative], storage.join(out, relative))


class _Extraction:
    """Computes the features of one video after the other; those that fail are left out."""

    def __init__(self, work: Work, folder: FeatureFolder, left_out: LeftOuts) -> None:
        self._work, self._folder, self._left_out = work, folder, left_out
        self._away: dict[str, str] = {}

    def first_good(self, videos: Sequence[Given]) -> int | None:
        """Write the features of the first of these files of one name that has any.

        Returns:
            The number of rows; None where each file fails.
        """
        failed: list[tuple[Given, _Failure]] = []
        for number, video in enumerate(videos, start=1):
            found = self._tried(video)
            if isinstance(found, _Failure):
                failed.append((video, found))
                continue
            more = f"; the features of {video.name!r} are those of {video.shown!r}"
            self._tell(failed, more)
            for second in videos[number:]:
                self._left_out.add_second(second, video)
            return found
        self._tell(failed)
        return None

    def _tell(self, failed: Sequence[tuple[Given, _Failure]], more: str = "") -> None:
        for video, why in failed:
            self._left_out.add(video, why.code, why.reason, told=f"{why.told}{more}")

    def _tried(self, video: Given) -> int | _Failure:
        """Number of rows, or why there are none: what is done is worth more than an early end."""
        store = "" if storage.is_local(video.uri) else "/".join(video.shown.split("/")[:3])
        passing = f"{file_name(video.uri)!r} could not be read at that time"
        if store in self._away:
            told = f"not tried, as its store did not answer before ({self._away[store]})"
            return _Failure(code="missing", reason=passing, told=told)
        try:
            return patiently(
                functools.partial(_extract, video.name, video.uri, self._folder, self._work)
            )
        except VideoError as error:
            return _Failure(code=error.code, reason=error.reason, told=error.reason)
        except (StorageError, StorageUnavailableError) as error:
            is_away = isinstance(error, StorageUnavailableError)
            if store and is_away and not isinstance(error, MachineTroubleError):
                self._away[store] = str(error)  # it was asked for a minute
            return _Failure(code="missing", reason=passing, told=str(error))


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """Why a video has no features: the reason is without a local path, what people are told not."""

    code: str
    reason: str
    told: str


def _extract(name: str, uri: str, folder: FeatureFolder, work: Work) -> int:
    """Measure a video and write its features; returns the number of rows."""
    if storage.is_local(uri) and _is_absent(storage.local_path(storage.absolute(uri))):
        what = "is a broken link; mend or remove it" if is_broken_link(uri) else "does not exist"
        raise VideoError("missing", f"{file_name(uri)!r} {what}")
    row = measured(name, uri, work.asked)
    rows = work.extractor.extract_row(
        row, work.source.clip, work.source.stride, cache_dir=work.asked.cache_dir
    )
    folder.write(rows, facts_from_row(row))
    return len(rows.features)


def _is_absent(path: Path) -> bool:
    """Whether there is no such file, which is more than not being able to see it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # no permission, ...: reading it says what the matter is
        pass
    return False


def measured(name: str, uri: str, asked: Computing) -> dict[str, Any]:
    """Measure a video by decoding it: a row of the videos table."""
    uri = storage.absolute(uri)  # worker processes stay in the folder in which they were started
    with local_video(uri, None, asked.cache_dir) as path:
        found = run_sandboxed(
            probe,
            path,
            LIMITS,
            keep_truncated=asked.truncated == "keep",
            max_pixels=LIMITS.max_pixels(path),
        )
        return {**found.as_row(), "video": name, "uri": uri}

"""Clips per second of the training's data path against the per-clip method.

Random clips of many videos (each opened for its clip, as with a real dataset), cropped, mirrored
and normalised, from the loader itself in one process with one thread: without proxies, and with
them; and the decoding alone that clips need without proxies. Then what the loader adds: a second
process, the start of an epoch of 160,000 clips, and the memory that the index takes in a loader
process.
`python -m benchmarks.training_data [--quick]`
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from benchmarks import baseline, measure
from benchmarks.measure import Row
from benchmarks.videos import h264_video
from tsp_core.config import ClipConfig, PretrainConfig, ProxyConfig
from tsp_core.schemas import CLIPS, VIDEOS, table_from_rows
from tsp_core.training import samplers
from tsp_core.training.index import ClipIndex, open_index, write_index
from tsp_core.training.loader import ClipLoader
from tsp_core.video.decode import opened_video
from tsp_core.video.frames import FrameFinder, decode_needed
from tsp_core.video.probe import VideoProbe, probe
from tsp_core.video.proxy import write_proxy
from tsp_core.video.proxy_files import proxy_settings
from tsp_core.video.sampling import clip_frames

_CLIP = ClipConfig()
_PRETRAIN = PretrainConfig()
_NUM_VIDEOS = 2000  # many more than a loader keeps open
_CODECS = {"MJPEG": ProxyConfig(), "H.264": ProxyConfig(codec="h264")}
_EPOCH_CLIPS = 160_000
_LIMIT = "decoding alone"
_TARGETS = {"without proxies": ">= 3x", "MJPEG proxies": ">= 12x"}

_MEMORY_PROGRAM = """
import sys
from pathlib import Path
from tsp_core.training.index import open_index

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

open_index(Path(sys.argv[1])).rows_of("training")
before = anonymous()
index = open_index(Path(sys.argv[2]))
arrays = (index.video_indices, index.label_indices, index.regions)
total = sum(int(array.sum()) for array in arrays) + index.starts(slice(None), 0.5).size
print(anonymous() - before)
"""


def run(quick: bool) -> list[Row]:
    """Measure on copies of the generated video of 120 seconds."""
    torch.set_num_threads(1)
    path = h264_video(120)
    found = probe(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, indexes = _prepared(folder, path, found)
        rows = _compared(path, found, indexes, quick) + rows
        rows += _second_process(indexes["MJPEG proxies"], quick)
        rows += _epoch_start(folder, indexes["MJPEG proxies"])
    return rows


def _prepared(
    folder: Path, path: Path, found: VideoProbe
) -> tuple[list[Row], dict[str, ClipIndex]]:
    """Make proxies and indexes; tell what the proxies cost."""
    rows, indexes = [], {"without proxies": _index(folder / "none", path, found, proxy=None)}
    hours = found.timeline.duration_seconds / 3600
    for name, settings in _CODECS.items():
        proxy = folder / f"{name}.arrow"
        start = time.process_time()
        write_proxy(path, found.as_row(), _CLIP, proxy_settings(settings, _CLIP), proxy)
        seconds = time.process_time() - start
        indexes[f"{name} proxies"] = _index(folder / name, path, found, proxy=proxy)
        size = proxy.stat().st_size / path.stat().st_size
        megabytes = proxy.stat().st_size / 1e6 / hours
        kbits = path.stat().st_size * 8 / 1000 / found.timeline.duration_seconds
        notes = f"{size:.1f} times the video, which is of {kbits:.0f} kbit/s"
        rows.append(measure.row(f"size of {name} proxies", megabytes, unit="MB/hour", notes=notes))
        rows.append(
            measure.row(f"making {name} proxies", seconds / hours, unit="s of CPU/hour of video")
        )
    return rows, indexes


def _index(folder: Path, path: Path, found: VideoProbe, *, proxy: Path | None) -> ClipIndex:
    """An index of copies of the video, half of them action and half background.

    Videos are copies by hard link, of other names, so that each is opened for itself.
    """
    folder.mkdir()
    videos, clips, proxies = [], [], {}
    for number in range(_NUM_VIDEOS):
        copy = folder / f"v{number}.mp4"
        copy.symlink_to(path)
        name = {"video": copy.stem, "uri": str(copy), "status": "ok", "content_hash": copy.stem}
        videos.append(found.as_row() | name)
        clips.append(_clip_row(number, found))
        if proxy is not None:
            link = copy.with_suffix(".arrow")
            link.symlink_to(proxy)
            proxies[copy.stem] = str(link)
    tables = (table_from_rows(videos, VIDEOS), table_from_rows(clips, CLIPS))
    write_index(folder, videos=tables[0], clips=tables[1], proxies=proxies)
    return open_index(folder)


def _clip_row(number: int, found: VideoProbe) -> dict[str, object]:
    duration = found.timeline.duration_seconds
    times = {"t_start": 0.0, "t_end": duration, "first_start": 0.0}
    labels = {"label_index": number % 2 - 1, "region": (number + 1) % 2}
    last = {"last_start": duration - _CLIP.seconds}
    return {"video": f"v{number}", "subset": "training", "status": "ok"} | times | labels | last


def _compared(
    path: Path, found: VideoProbe, indexes: dict[str, ClipIndex], quick: bool
) -> list[Row]:
    works = {
        "baseline": _baseline(path, found, num_clips=12 if quick else 32),
        _LIMIT: _decoded(path, found, num_clips=16 if quick else 32),
    }
    for name, index in indexes.items():
        num_clips = 32 if name == "without proxies" else 256
        works[name] = _loaded(index, num_clips=num_clips // (2 if quick else 1))
    rates = measure.side_by_side(works, rounds=3 if quick else 5)
    share = measure.ratio(rates["without proxies"], rates[_LIMIT])
    notes = {"without proxies": f"{100 * share:.0f} % of decoding alone"}
    return [
        measure.rate_row(
            f"training data, {name} (320x240, 30 fps, H.264)",
            rates[name],
            rates["baseline"],
            target=_TARGETS.get(name, ""),
            notes=notes.get(name, ""),
        )
        for name in (*indexes, _LIMIT)
    ]


def _baseline(path: Path, found: VideoProbe, *, num_clips: int) -> Callable[[], int]:
    """Random clips one by one, as the released code's training dataset reads them."""
    latest = found.timeline.duration_seconds - _CLIP.seconds
    random = np.random.default_rng(0)

    def work() -> int:
        starts = random.uniform(0, latest, num_clips).tolist()
        for first in range(0, num_clips, 16):
            batch = starts[first : first + 16]
            torch.stack([baseline.read_clip(path, start, 30.0) for start in batch])
        return num_clips

    return work


def _decoded(path: Path, found: VideoProbe, *, num_clips: int) -> Callable[[], int]:
    """What no reader of the video itself can do without, per random clip: open, seek, decode.

    From the keyframe before the clip to its last frame, without the frames that neither the clip
    nor another frame needs; no picture is converted.
    """
    timeline, keyframes = found.timeline, np.asarray(found.keyframes)
    random = np.random.default_rng(0)

    def work() -> int:
        for start in random.uniform(0, timeline.duration_seconds - _CLIP.seconds, num_clips):
            needed = clip_frames(timeline, _CLIP, float(start)).tolist()
            keyframe = keyframes[np.searchsorted(keyframes, needed[0], side="right") - 1]
            with opened_video(path) as (container, stream):
                container.seek(int(timeline.pts[keyframe]), stream=stream)
                finder = FrameFinder(timeline, path)
                missing = set(needed)
                for frame in decode_needed(container, stream, finder, missing.__contains__):
                    missing.discard(finder.index_of(frame))
                    if not missing:
                        break
        return num_clips

    return work


def _loaded(index: ClipIndex, *, num_clips: int) -> Callable[[], int]:
    """Random clips from the loader, without loader processes."""
    epochs = itertools.count()

    def work() -> int:
        with closing(_loader(index, workers=0)) as loader:
            return _read(loader, index, num_clips=num_clips, epoch=next(epochs))

    return work


def _loader(index: ClipIndex, *, workers: int) -> ClipLoader:
    device = torch.device("cpu")
    return ClipLoader(index, _CLIP, device=device, num_workers=workers, cache_dir=None)


def _read(loader: ClipLoader, index: ClipIndex, *, num_clips: int, epoch: int) -> int:
    plan = _plan(index, num_clips // len(index.regions) + 1, epoch)
    positions = _positions(num_clips)
    return sum(len(batch) for batch in loader.batches(plan, positions))


def _plan(index: ClipIndex, clips_per_segment: int, epoch: int) -> samplers.ClipPlan:
    pretrain = _PRETRAIN.model_copy(update={"clips_per_segment": clips_per_segment})
    rows = np.arange(len(index.regions), dtype=np.int64)
    return samplers.training_plan(rows, index.regions, clip=_CLIP, pretrain=pretrain, epoch=epoch)


def _positions(num_clips: int) -> Iterator[np.ndarray]:
    size = _PRETRAIN.batch_size
    return (np.arange(first, min(first + size, num_clips)) for first in range(0, num_clips, size))


def _second_process(index: ClipIndex, quick: bool) -> list[Row]:
    """Clips per second of wall time with one loader process and with two."""
    num_clips = 512 if quick else 1024
    with closing(_loader(index, workers=1)) as one, closing(_loader(index, workers=2)) as two:
        for loader in (one, two):
            _read(loader, index, num_clips=64, epoch=0)  # starts the processes
        rates: dict[str, measure.Rates] = measure.side_by_side(
            {
                "one": lambda: _read(one, index, num_clips=num_clips, epoch=1),
                "two": lambda: _read(two, index, num_clips=num_clips, epoch=1),
            },
            rounds=3,
        )
    ratios = [b / a for a, b in zip(rates["one"].wall, rates["two"].wall, strict=True)]
    return [
        measure.row(
            "loader, two processes against one (MJPEG proxies)",
            float(np.median(rates["two"].wall)),
            unit="clips/s of wall time",
            baseline=float(np.median(rates["one"].wall)),
            ratio=float(np.median(ratios)),
            notes="both share two cores with the process that receives",
        )
    ]


def _epoch_start(folder: Path, small: ClipIndex) -> list[Row]:
    """Seconds from drawing an epoch's plan to its first batch, with warm loader processes."""
    large = _large_index(folder / "large", small)
    clips_per_segment = _EPOCH_CLIPS // len(large.regions)
    seconds = {}
    for workers in (0, 2):
        with closing(_loader(large, workers=workers)) as loader:
            _read(loader, large, num_clips=64, epoch=0)
            start = time.perf_counter()
            plan = _plan(large, clips_per_segment, epoch=1)
            next(iter(loader.batches(plan, _positions(len(plan)))))
            seconds[workers] = time.perf_counter() - start
            assert len(plan) == _EPOCH_CLIPS
    rows = [
        measure.row(
            f"start of an epoch of {_EPOCH_CLIPS} clips, to its first batch, {name}",
            seconds[workers],
            unit="s",
            target="< 2 s",
        )
        for workers, name in ((0, "without loader processes"), (2, "two loader processes"))
    ]
    size = sum(file.stat().st_size for file in large.folder.glob("*.arrow")) / 1e6
    command = [sys.executable, "-c", _MEMORY_PROGRAM, str(small.folder), str(large.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    notes = f"the index is of {size:.1f} MB, mapped"
    own = int(done.stdout) / 1e3
    return [
        *rows,
        measure.row("own memory of a process with that index", own, unit="MB", notes=notes),
    ]


def _large_index(folder: Path, small: ClipIndex) -> ClipIndex:
    """An index of as many segments as an epoch has clips of, five each."""
    folder.mkdir()
    count = _EPOCH_CLIPS // _PRETRAIN.clips_per_segment
    videos = small.videos.drop_columns(["proxy"])
    uris = zip(*(small.videos[name].to_pylist() for name in ("content_hash", "proxy")), strict=True)
    repeated = np.arange(count) % small.clips.num_rows
    clips = small.clips.append_column(
        "video", small.videos["video"].take(small.clips["video_index"])
    )
    columns = {name: clips[name].take(pa.array(repeated)) for name in clips.schema.names}
    columns |= {"status": pa.array(["ok"] * count)}
    write_index(folder, videos=videos, clips=pa.table(columns), proxies=dict(uris))
    return open_index(folder)


if __name__ == "__main__":
    _options = measure.arguments(__doc__)
    measure.report(run(_options.quick), _options.json)

"""Draws where the time of the two hot paths goes, as flame graphs by py-spy.

The paths are all clips of a video in one pass (export) and clips at random places (training). What
lies left of them is the start of Python. `python -m benchmarks.flame_graphs [--out FOLDER]`
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.breakdown import one_pass
from benchmarks.videos import h264_video
from tsp_core.config import ClipConfig
from tsp_core.video.probe import VideoProbe, probe
from tsp_core.video.reader import ClipReader
from tsp_core.video.sampling import clip_frames, clip_grid
from tsp_core.video.transforms import mirrored, normalise_clips

_CLIP = ClipConfig()
_SAMPLES_PER_SECOND = 25
_PATHS = ("export", "training")
_TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*')
_FOLDER = Path(__file__).resolve().parent.parent / "docs" / "performance"


def draw(name: str, target: Path) -> None:
    """Run a hot path under py-spy and write its picture, an SVG."""
    command = [sys.executable, "-m", "benchmarks.flame_graphs", "--run", name]
    recorder = [str(Path(sys.executable).with_name("py-spy")), "record", "--format", "flamegraph"]
    settings = ["--rate", str(_SAMPLES_PER_SECOND), "--output", str(target)]
    subprocess.run([*recorder, *settings, "--", *command], check=True)
    # py-spy's title is its command line, with the folders of whoever ran it.
    title = rf"\g<1>{name} data path, share of the samples"
    target.write_text(_TITLE.sub(title, target.read_text(), count=1))


def run_path(name: str, *, rounds: int = 25) -> int:
    """Run a hot path on one thread for some 20 seconds; the number of clips."""
    torch.set_num_threads(1)
    path = h264_video(120)
    found = probe(path)
    if name == "export":
        grid = clip_grid(found.timeline, _CLIP, 16)
        return sum(one_pass(path, found, grid) for _ in range(rounds))
    return random_clips(path, found, 25 * rounds)


def random_clips(path: Path, found: VideoProbe, count: int) -> int:
    """Read clips at random places and make them ready for the network; the number of clips."""
    random = np.random.default_rng(0)
    latest = found.timeline.duration_seconds - _CLIP.length / _CLIP.frame_rate
    window = (8, 8, _CLIP.crop_size, _CLIP.crop_size)
    rotation = found.row["rotation_degrees"]
    with ClipReader(path, found.timeline, found.keyframes, rotation, _CLIP) as reader:
        for start in random.uniform(0, latest, count):
            frames = reader.read(clip_frames(found.timeline, _CLIP, float(start)), window)
            normalise_clips(torch.from_numpy(mirrored(frames))[None])
    return count


def main() -> None:
    """Draw all pictures, or be one of the processes that are looked at."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=_FOLDER)
    parser.add_argument("--run", choices=_PATHS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run is not None:
        run_path(options.run)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for name in _PATHS:
        draw(name, options.out / f"{name}_data_path.svg")


if __name__ == "__main__":
    main()

"""Damages videos at random and takes them through ingest and export; `make fuzz` is the long form.

Whatever the damage, the run goes on; each file is refused with a reason, or gives exactly what a
straight decode of it gives: frames, their times, and the features of its clips. The seed and its
number determine a file.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.reliability.media_oracle import CLIP, decode_straight, judge
from tests.synthetic import VideoSpec, write_video
from tsp_core import pipeline, storage
from tsp_core.config import Config, EncoderConfig
from tsp_core.model.inference import forward_features, prepare_for_inference
from tsp_core.model.weights import load_encoder
from tsp_core.schemas import read_table
from tsp_core.stages import export
from tsp_core.video.sampling import clip_grid, timeline_from_row

_X265 = {"x265-params": "log-level=none"}
BASES = {
    "faststart.mp4": VideoSpec(b_frames=3, container_options={"movflags": "+faststart"}),
    "plain.mp4": VideoSpec(b_frames=2, gop=5),
    "fragments.mp4": VideoSpec(container_options={"movflags": "frag_keyframe+empty_moov"}),
    "sound.mkv": VideoSpec(b_frames=2, audio_seconds=0.8),
    "uneven.mkv": VideoSpec(
        pts=[40 * i + 60 * (i // 7) for i in range(25)], time_base=Fraction(1, 1000)
    ),
    "vp9.webm": VideoSpec(codec="libvpx-vp9", rate=Fraction(24)),
    "mpeg4.avi": VideoSpec(codec="mpeg4", b_frames=2),
    "jpeg.avi": VideoSpec(codec="mjpeg", pixel_format="yuvj420p"),
    "unordered.avi": VideoSpec(b_frames=3),
    "hevc.mov": VideoSpec(codec="libx265", options=_X265, rotation=90),
    "mpeg2.mpg": VideoSpec(codec="mpeg2video", rate=Fraction(25), b_frames=2),
    "h264.ts": VideoSpec(b_frames=2, rate=Fraction(50)),
    "flv.flv": VideoSpec(codec="flv"),
    "wmv.wmv": VideoSpec(codec="wmv2"),
}
NUM_FRAMES = 25
STRIDE = 3
_BATCH_SIZE = 16
Bytes = NDArray[np.uint8]
_EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\1")


def _truncate(data: Bytes, random: np.random.Generator) -> Bytes:
    return data[: random.integers(len(data))]


def _flip_bits(data: Bytes, random: np.random.Generator) -> Bytes:
    places = random.integers(len(data), size=2 ** random.integers(8))
    data[places] ^= (1 << random.integers(8, size=len(places))).astype(np.uint8)
    return data


def _flip_bits_of_headers(data: Bytes, random: np.random.Generator) -> Bytes:
    places = random.integers(min(1000, len(data)), size=2 ** random.integers(6))
    places = np.where(random.integers(2, size=len(places)), places, len(data) - 1 - places)
    data[places] ^= (1 << random.integers(8, size=len(places))).astype(np.uint8)
    return data


def _overwrite(data: Bytes, random: np.random.Generator) -> Bytes:
    start, length = random.integers(len(data)), 2 ** random.integers(12)
    fill = random.integers(256, size=length, dtype=np.uint8) * random.integers(2, dtype=np.uint8)
    data[start : start + length] = fill[: len(data) - start]
    return data


def _extreme_number(data: Bytes, random: np.random.Generator) -> Bytes:
    start = int(random.integers(min(2000, len(data) - 4)))
    start = start if random.integers(2) else len(data) - 4 - start
    data[start : start + 4] = np.frombuffer(_EXTREMES[random.integers(5)], np.uint8)
    return data


def _cut_out(data: Bytes, random: np.random.Generator) -> Bytes:
    start, length = random.integers(len(data)), 2 ** random.integers(12)
    return np.delete(data, slice(start, start + length))


def _insert(data: Bytes, random: np.random.Generator) -> Bytes:
    noise = random.integers(256, size=2 ** random.integers(10), dtype=np.uint8)
    return np.insert(data, random.integers(len(data)), noise)


def _swap(data: Bytes, random: np.random.Generator) -> Bytes:
    first, second = sorted(random.integers(len(data), size=2))
    length = min(2 ** random.integers(11), second - first, len(data) - second)
    one, other = data[first : first + length].copy(), data[second : second + length].copy()
    data[first : first + length], data[second : second + length] = other, one
    return data


def _repeat(data: Bytes, random: np.random.Generator) -> Bytes:
    start = int(random.integers(len(data)))
    part = data[start : start + 2 ** int(random.integers(12))]
    return np.insert(data, start, part)


MUTATIONS: tuple[Callable[[Bytes, np.random.Generator], Bytes], ...] = (
    _truncate,
    _flip_bits,
    _flip_bits_of_headers,
    _overwrite,
    _extreme_number,
    _cut_out,
    _insert,
    _swap,
    _repeat,
)


@dataclass(kw_only=True)
class FuzzReport:
    """What became of the files.

    Attributes:
        outcomes: How many files of each damage came to each outcome.
        wrong: What is wrong, by file.
        num_features: Clips whose features were compared.
    """

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    num_features: int = 0

    def table(self) -> str:
        """The outcomes as text."""
        names = sorted({name for counts in self.outcomes.values() for name in counts})
        rows = [["damage", *names]]
        for damage, counts in self.outcomes.items():
            rows.append([damage, *(str(counts[name]) for name in names)])
        totals = (sum(counts[name] for counts in self.outcomes.values()) for name in names)
        rows.append(["all", *map(str, totals)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def fuzz(folder: Path, *, seed: int, count: int) -> FuzzReport:
    """Damage `count` videos, run the stages on all of them, and judge what comes out."""
    damages = _write_damaged(folder, seed, count)
    config = _config(folder)
    ingest = pipeline.run_stage(config, "ingest", {})
    table = read_table(ingest.artifact.file("videos.parquet"), "videos").to_pylist()
    rows = {row["video"]: row for row in table}
    assert set(rows) == set(damages), "every file is accounted for"
    report = FuzzReport()
    good: dict[str, Mapping[str, Any]] = {}
    for name, damage in sorted(damages.items()):
        row = rows[name]
        try:
            outcome = judge(Path(row["uri"]), row)
        except Exception as error:
            report.wrong[name] = f"{damage}: {type(error).__name__}: {error}"
            outcome = "WRONG"
        report.outcomes.setdefault(damage, Counter())[outcome] += 1
        if outcome.startswith("ok"):
            good[name] = row
    if good:
        _check_features(config, {"ingest": ingest.artifact}, good, report)
    return report


def _write_damaged(folder: Path, seed: int, count: int) -> dict[str, str]:
    """Write the files; returns the damage by name."""
    (folder / "videos").mkdir()
    return dict(write_damaged(folder, seed, number) for number in range(count))


def write_damaged(folder: Path, seed: int, number: int) -> tuple[str, str]:
    """Write one file into `folder`/videos, made once into `folder`/bases; its name and damage."""
    name = sorted(BASES)[number % len(BASES)]
    base = folder / "bases" / name
    if not base.exists():
        write_video(base, replace(BASES[name], num_frames=NUM_FRAMES))
    random = np.random.default_rng((seed, number))
    mutate = MUTATIONS[int(random.integers(len(MUTATIONS)))]
    path = folder / "videos" / f"{number:05}-{name}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(mutate(np.fromfile(base, dtype=np.uint8), random).tobytes())
    return path.stem, mutate.__name__.strip("_").replace("_", " ")


def _config(folder: Path) -> Config:
    return Config.model_validate(
        {
            "root": str(folder / "root"),
            "clip": CLIP.model_dump(),
            "encoder": {"name": "r2plus1d_tiny", "weights": "random:0"},
            "ingest": {"videos": str(folder / "videos"), "max_bad_fraction": 1.0},
            "export": {"checkpoint": "random:0", "stride": STRIDE, "formats": ["npy"]},
            "runtime": {"device": "cpu", "decoder_stall_seconds": 60},
        }
    )


def _check_features(
    config: Config, inputs: Mapping[str, Any], good: Mapping[str, Any], report: FuzzReport
) -> None:
    """Compare the exported features with those of the straightly decoded frames."""
    plan = export.plan(config, inputs)
    for shard in plan.shards:
        export.run_shard(config, inputs, shard)
    artifact = export.finish(config, inputs, plan).artifact
    loaded = load_encoder(EncoderConfig(name="r2plus1d_tiny", weights="random:0"))
    encoder = prepare_for_inference(loaded.encoder, device=torch.device("cpu"), precision="fp32")
    for name, row in good.items():
        grid = clip_grid(timeline_from_row(row), config.clip, STRIDE)
        straight = decode_straight(Path(row["uri"]), row["rotation_degrees"])
        batches = np.array_split(grid.frame_indices, len(grid) // _BATCH_SIZE + 1)
        clips = (straight.frames[batch].permute(0, 2, 1, 3, 4) for batch in batches)
        expected = np.concatenate([forward_features(encoder, item).numpy() for item in clips])
        path = storage.local_path(artifact.file(f"npy/{name}.npy"))
        found = np.load(path) if path.exists() else np.empty((0, 0))
        report.num_features += len(found)
        if found.shape != expected.shape or not np.allclose(found, expected, atol=0.02):
            report.wrong[name] = "the exported features are not those of a straight decode"


def main() -> int:
    """Fuzz and print the table; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tsp-fuzz-") as folder:
        report = fuzz(Path(folder), seed=options.seed, count=options.count)
    print(report.table())
    print(f"\n{report.num_features} clips have the features of a straight decode")
    for name, what in report.wrong.items():
        print(f"WRONG {name}: {what}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

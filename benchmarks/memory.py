"""Peak memory of reading a video of two hours, against one of two minutes.

Each video is measured as ingest does it and exported in a process of its own, at full picture size
and with features of 512 numbers; the encoder is a single convolution, because a real one's memory
depends on the batch and not on the video. The long video is the short one over and over.
`python -m benchmarks.memory [--quick]`
"""

from __future__ import annotations

import argparse
import pickle
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import Row
from benchmarks.videos import h264_video, repeated

TARGET_MB = 300
_SHORT_SECONDS = 120
_LONG_SECONDS, _QUICK_SECONDS = 2 * 3600, 1200
_STRIDE = 16
_STEPS = {"probe": "measuring (ingest)", "export": "export, stride 16"}


def run(quick: bool) -> list[Row]:
    """Measure on a video of two hours (20 minutes when quick)."""
    seconds = _QUICK_SECONDS if quick else _LONG_SECONDS
    short = h264_video(_SHORT_SECONDS)
    rows = []
    with tempfile.TemporaryDirectory(prefix="tsp-memory-") as folder:
        long = repeated(short, seconds // _SHORT_SECONDS, Path(folder, "long.mp4"))
        for step, name in _STEPS.items():
            little, much = (
                _peak_mb(step, path, Path(folder, f"{path.stem}.pkl")) for path in (short, long)
            )
            rows.append(
                measure.row(
                    f"{name}: peak memory beyond that of a {_SHORT_SECONDS} s video",
                    much - little,
                    unit="MB",
                    target=f"<= {TARGET_MB}",
                    notes=f"{much:.0f} MB on {seconds} s, {little:.0f} MB on {_SHORT_SECONDS} s",
                )
            )
    return rows


def _peak_mb(step: str, video: Path, facts: Path) -> float:
    """Run a step in a process of its own; its peak resident memory."""
    command = [sys.executable, "-m", "benchmarks.memory", "--step", step, str(video), str(facts)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def _probe(video: Path, facts: Path) -> None:
    from tsp_core.video.probe import probe

    facts.write_bytes(pickle.dumps(probe(video).as_row()))


def _export(video: Path, facts: Path) -> None:
    import torch

    from tsp_core.config import ClipConfig
    from tsp_core.features.extraction import Extractor
    from tsp_core.features.rows import table_from_features

    torch.set_num_threads(1)
    row: dict[str, Any] = pickle.loads(facts.read_bytes())  # written by `_probe`
    row |= {"video": video.stem, "uri": str(video)}
    extractor = Extractor(_one_convolution(), 512, device="cpu")
    found = extractor.extract_row(row, ClipConfig(), _STRIDE)
    table_from_features(found)


def _one_convolution() -> Any:
    """An encoder as `prepare_for_inference` wants it that costs next to nothing."""
    from torch import nn

    stem = nn.Conv3d(3, 64, kernel_size=(1, 16, 16), stride=(1, 16, 16))
    layers = {f"layer{number}": nn.Identity() for number in (1, 2, 3, 4)}
    pool = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
    modules = {"stem": stem, **layers, "avgpool": pool, "fc": nn.Linear(64, 512)}
    encoder = nn.Sequential()
    for name, module in modules.items():
        encoder.add_module(name, module)
    return encoder


def _own_peak_mb() -> float:
    """Peak resident memory of this process; getrusage also counts the process it came from."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS


def main() -> None:
    """Measure, or be one of the measured processes."""
    if sys.argv[1:2] == ["--step"]:
        parser = argparse.ArgumentParser()
        parser.add_argument("--step", choices=_STEPS)
        parser.add_argument("video", type=Path)
        parser.add_argument("facts", type=Path)
        options = parser.parse_args()
        (_probe if options.step == "probe" else _export)(options.video, options.facts)
        print(_own_peak_mb())
    else:
        options = measure.arguments(__doc__)
        measure.report(run(options.quick), options.json)


if __name__ == "__main__":
    main()

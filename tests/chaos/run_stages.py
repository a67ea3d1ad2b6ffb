"""Runs all stages one after the other as `tsp STAGE` does, and tells every step on stdout."""

from __future__ import annotations

import sys

from flows.direct import run_directly
from tsp_core.config import STAGE_NAMES
from tsp_core.config.io import load_config
from tsp_core.stages.base import Progress


def say(line: str) -> None:
    print(line, flush=True)


def show(progress: Progress) -> None:
    say(f"{progress.stage}: {progress.done:g}/{progress.total:g} {progress.unit}")


def main(config_path: str, *assignments: str) -> None:
    config = load_config(config_path, assignments=assignments)
    for stage in STAGE_NAMES:
        say(f"{stage}: begins")
        report = run_directly(config, stage, show)
        say(f"{stage}: {'up to date' if report.reused else 'done'}")


if __name__ == "__main__":
    main(*sys.argv[1:])

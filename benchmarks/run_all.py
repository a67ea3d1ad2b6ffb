"""The main benchmarks, each in a process of its own, into one table: `make bench`.

Writes DIR/results.md and DIR/results.json with the versions and the processor. Exit code 1 when one
of them fails. `python -m benchmarks.run_all [--quick] [--out DIR] [--only NAME...]`
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Row

SCRIPTS = (
    "export_data",
    "model_cpu",
    "breakdown",
    "training_data",
    "memory",
    "orchestration",
    "shard_rows",
    "gpu",
)
_PACKAGES = ("torch", "torchvision", "av", "numpy", "pyarrow", "prefect")
_FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Run the benchmarks and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements")
    parser.add_argument("--out", type=Path, default=_FOLDER / "results")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS)
    options = parser.parse_args()
    results: dict[str, list[Row]] = {}
    failed = []
    for number, name in enumerate(options.only, start=1):
        print(f"== {name} ({number}/{len(options.only)})", flush=True)
        start = time.monotonic()
        rows = _rows(name, options.quick)
        print(f"== {name}: {time.monotonic() - start:.0f} s", flush=True)
        if rows is None:
            failed.append(name)
        else:
            results[name] = rows
    _write(options.out, {"machine": _machine(), "results": results, "failed": failed})
    print(f"== {options.out / 'results.md'}, {options.out / 'results.json'}")
    if failed:
        print(f"== failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _rows(name: str, quick: bool) -> list[Row] | None:
    """Run one benchmark; None when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "rows.json")
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(target)]
        done = subprocess.run(
            [*command, *(["--quick"] if quick else [])], cwd=_FOLDER.parent, check=False
        )
        if done.returncode != 0:
            return None
        rows: list[Row] = json.loads(target.read_text())
        return rows


def _machine() -> dict[str, Any]:
    return {
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    for line in facts.read_text().splitlines() if facts.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _write(folder: Path, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = ["# Benchmarks", "", ", ".join(f"{k} {v}" for k, v in content["machine"].items())]
    for name, rows in content["results"].items():
        lines += ["", f"## {name}", "", *_table(rows)]
    if content["failed"]:
        lines += ["", f"Failed: {', '.join(content['failed'])}"]
    (folder / "results.md").write_text("\n".join(lines) + "\n")


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["Skipped: not possible on this machine."]
    head = ["| what | value | baseline | ratio | unit | target | notes |"]
    return [*head, "| --- | ---: | ---: | ---: | --- | --- | --- |", *map(_line, rows)]


def _line(row: Row) -> str:
    baseline, ratio = row["baseline"], row["ratio"]
    cells = [
        row["name"],
        f"{row['value']:.4g}",
        "" if baseline is None else f"{baseline:.4g}",
        "" if ratio is None else f"{ratio:.1f}x",
        row["unit"],
        row["target"],
        row["notes"],
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


if __name__ == "__main__":
    sys.exit(main())

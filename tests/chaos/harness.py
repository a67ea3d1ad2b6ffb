"""Kills runs at seeded random moments, starts them again, and looks for what was lost.

A run is a process group of its own: `tsp run`, or all stages one after the other without Prefect.
A kill is SIGKILL to the whole group, a seeded part of a stage's duration after the stage began.
After every kill the root is inspected as a reader would see it; after the last, the run goes to its
end and everything published is compared, byte by byte, with what an uninterrupted run published.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.inspection import Snapshot, look, published_files, repeated_work
from tests.servers import REPOSITORY
from tsp_core.config import STAGE_NAMES

RUN_SECONDS = 900.0
MARK = "TSP_CHAOS_RUN"
COMMANDS = {
    "stages": ("-m", "tests.chaos.run_stages"),
    "flow": ("-c", "from flows.cli import main; main()", "run"),
}


@dataclass(kw_only=True)
class Run:
    """One start of the pipeline and what it said.

    Attributes:
        process: Leader of its process group.
        log: What it wrote, lines of standard output and error.
        mark: Environment entry that its processes, and only they, carry, but for those with an
            environment of their own.
        family: Its processes and their start times, when it was killed.
    """

    process: subprocess.Popen[bytes]
    log: Path
    mark: str
    family: set[tuple[int, str]] = field(default_factory=set)

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def has_begun(self, stage: str) -> bool:
        """Whether a stage is under way: it said something, or the one before it is done."""
        before = STAGE_NAMES[: STAGE_NAMES.index(stage)]
        previous = rf"{before[-1]}: (done|up to date)" if before else rf"{stage}:"
        return any(re.match(rf"{previous}|{stage}:", line) for line in self.lines())

    def reached(self) -> str:
        """The last stage that has begun."""
        return next((name for name in reversed(STAGE_NAMES) if self.has_begun(name)), "start")

    def iterations(self) -> list[int]:
        """Optimiser steps that were reported, in order."""
        found = (re.match(r"pretrain: (\d+)/\d+ iterations", line) for line in self.lines())
        return [int(match[1]) for match in found if match]

    def kill(self) -> None:
        self.family |= _descendants(self.process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def survivors(self, patience_seconds: float = 20.0) -> list[int]:
        """Processes of this run that outlive it; they are given a moment, then killed."""
        deadline = time.monotonic() + patience_seconds
        while (alive := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return alive

    def _alive(self) -> list[int]:
        present = _processes()
        family = {
            pid for pid, start in self.family if pid in present and present[pid].start == start
        }
        return sorted({*family, *_marked(self.mark)})


@dataclass(frozen=True, kw_only=True)
class _Process:
    parent: int
    start: str


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill and what came of it; `faults` is empty when nothing was lost."""

    seed: int
    where: str
    stage: str
    faults: tuple[str, ...]


@dataclass(kw_only=True)
class Chaos:
    """A place to run a dataset's pipeline in, again and again.

    Attributes:
        config: The configuration.
        folder: For logs and caches.
        parent: URI below which each scenario has a root of its own.
        command: "stages" or "flow", one of COMMANDS.
        assignments: Changes to the configuration.
        environment: Added to that of this process.
    """

    config: Path
    folder: Path
    parent: str
    command: str = "stages"
    assignments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    reference: dict[str, str] = field(default_factory=dict)

    def start(self, root: str) -> Run:
        mark = uuid.uuid4().hex
        log = self.folder / "logs" / f"{mark}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *COMMANDS[self.command], str(self.config)]
        for change in (f"root={root}", *self.assignments):
            command += ["--set", change] if self.command == "flow" else [change]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Run(process=process, log=log, mark=mark)

    def finish(self, run: Run) -> Run:
        """Let a run go to its end; it must succeed and leave no process behind."""
        try:
            status = run.process.wait(RUN_SECONDS)
            assert status == 0, run.log.read_text()[-6000:]
        finally:
            run.kill()
        assert run.survivors() == []
        return run

    def run_reference(self) -> None:
        """Run without interruption; remember what was published and how long each stage took."""
        root = f"{self.parent}/reference"
        run = self.start(root)
        began: dict[str, float] = {}
        while run.process.poll() is None:
            for stage in STAGE_NAMES:
                if stage not in began and run.has_begun(stage):
                    began[stage] = time.monotonic()
            time.sleep(0.05)
        self.finish(run)
        times = [*(began[stage] for stage in STAGE_NAMES if stage in began), time.monotonic()]
        self.durations = {
            stage: after - at for stage, at, after in zip(began, times, times[1:], strict=False)
        }
        self.reference = published_files(root)
        assert {name.split("/")[0] for name in self.reference} == set(STAGE_NAMES)

    def run_scenario(self, seed: int, stages: Sequence[str]) -> list[Kill]:
        """Kill a run once in (or soon after) each of some stages, then let it end and compare."""
        rng = random.Random(seed)
        root = f"{self.parent}/seed-{seed}"
        kills: list[Kill] = []
        before: Snapshot | None = None
        for number, stage in enumerate(stages):
            run = self.start(root)
            self._wait_for(run, stage, part=rng.random())
            run.kill()
            faults = [f"process {pid} survived" for pid in run.survivors()]
            snapshot, found = look(root)
            faults += found
            if before is not None:
                faults += repeated_work(before, snapshot, run.iterations())
            kills.append(
                Kill(seed=seed, where=f"{number + 1}", stage=run.reached(), faults=tuple(faults))
            )
            before = snapshot
        last = self.finish(self.start(root))
        snapshot, faults = look(root, is_finished=True)
        if before is not None:
            faults += repeated_work(before, snapshot, last.iterations())
        faults += self.differences(root)
        return [*kills, Kill(seed=seed, where="end", stage="(finished)", faults=tuple(faults))]

    def _wait_for(self, run: Run, stage: str, *, part: float) -> None:
        deadline = time.monotonic() + RUN_SECONDS
        while run.process.poll() is None and not run.has_begun(stage):
            assert time.monotonic() < deadline, run.log.read_text()[-6000:]
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(part * self.durations.get(stage, 1.0))

    def differences(self, root: str) -> list[str]:
        found = published_files(root)
        names = sorted(self.reference.keys() | found.keys())
        return [
            f"{name} differs from the uninterrupted run's"
            for name in names
            if self.reference.get(name) != found.get(name)
        ]


def _processes() -> dict[int, _Process]:
    """The processes of this machine that have not ended, by id."""
    found: dict[int, _Process] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rsplit(") ", 1)[1].split()
                if fields[0] not in "ZX":
                    found[int(folder.name)] = _Process(parent=int(fields[1]), start=fields[19])
    return found


def _descendants(pid: int) -> set[tuple[int, str]]:
    """A process and all below it, with their start times."""
    present = _processes()
    found, new = set(), {pid} & present.keys()
    while new:
        found |= new
        new = {child for child, process in present.items() if process.parent in new} - found
    return {(item, present[item].start) for item in found}


def _marked(mark: str) -> list[int]:
    """Processes whose environment carries a mark; a process that is ending has none."""
    entry = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def table(kills: Sequence[Kill]) -> str:
    """The kills as a table for people."""
    rows = [("seed", "kill", "in stage", "lost")]
    rows += [
        (str(kill.seed), kill.where, kill.stage, "; ".join(kill.faults) or "nothing")
        for kill in kills
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


def draw_stages(seed: int, count: int) -> Iterator[str]:
    """Stages to kill in, each as often as any other, in an order that the seed decides."""
    rng = random.Random(f"stages {seed}")
    while count > 0:
        names = [str(name) for name in STAGE_NAMES]
        rng.shuffle(names)
        yield from names[:count]
        count -= len(names)

"""Run by a test: the command line on fake stages, whose `ingest` takes very long.

Arguments: how it takes long ("shards", "main", "hangs" or "stubborn"), a folder, and those of
`tsp`. While it does, there is a file `waits` in the folder; a file `go on` there makes it quick.
What is to unwind before it ends has time for it, however busy the machine is; "hangs" and
"stubborn" are what never does.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import pytest

from flows import cli, interrupts
from tests.fakes import FakeStages


def main(how: str, folder: Path, *arguments: str) -> None:
    def wait() -> None:
        (folder / "waits").touch()
        until = time.monotonic() + 600
        while not (folder / "go on").exists() and time.monotonic() < until:
            time.sleep(0.05)

    def wait_whatever_comes() -> None:
        while not (folder / "go on").exists():
            with contextlib.suppress(KeyboardInterrupt):
                wait()

    with pytest.MonkeyPatch.context() as monkeypatch:
        fakes = FakeStages().install(monkeypatch)
        if how in ("shards", "main"):
            monkeypatch.setattr(interrupts, "SECONDS_TO_END", 120.0)
        if how in ("shards", "hangs"):
            fakes["ingest"].shards = 4
            fakes["ingest"].on_shard = lambda shard: wait()
        else:
            fakes["ingest"].on_finish = wait if how == "main" else wait_whatever_comes
        monkeypatch.setattr(sys, "argv", ["tsp", *arguments])
        cli.main()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])

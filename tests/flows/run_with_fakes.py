"""Run by a test: the flow on fake stages, of which `gvf` waits until it is told to go on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows.full_pipeline import full_pipeline
from tests.fakes import FakeStages


def main(config: str, folder: Path) -> None:
    def wait() -> None:
        (folder / "waits").touch()
        while not (folder / "go on").exists():
            time.sleep(0.05)

    with pytest.MonkeyPatch.context() as monkeypatch:
        fakes = FakeStages().install(monkeypatch)
        fakes["gvf"].on_finish = wait
        fakes["export"].shards = 2
        run: Any = full_pipeline
        run(config)
    print("fakes:", fakes.calls())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

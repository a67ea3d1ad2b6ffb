"""A `sitecustomize` for training processes and their workers: reads of one video go wrong.

TSP_TEST_VIDEO names the video's file, TSP_TEST_HOW what happens: "crash", "hang", or "crash once",
which is remembered by the file that TSP_TEST_MARKER names.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, video: str, how: str, marker: Path
) -> None:
    """Have the processes that are started from now on import this."""
    folder.mkdir()
    shutil.copy(__file__, folder / "sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    # Workers of the sandbox get no other variables than Python's.
    monkeypatch.setenv("PYTHON_TSP_TEST_VIDEO", video)
    monkeypatch.setenv("PYTHON_TSP_TEST_HOW", how)
    monkeypatch.setenv("PYTHON_TSP_TEST_MARKER", str(marker))


def go_wrong() -> None:
    how, marker = os.environ["PYTHON_TSP_TEST_HOW"], Path(os.environ["PYTHON_TSP_TEST_MARKER"])
    if how == "crash once" and marker.exists():
        return
    marker.touch()
    if how == "hang":
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGSEGV)


class _Patch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "tsp_core.video.reader":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            read = module.ClipReader.read

            def failing_read(reader, *arguments, **keywords):
                if reader._path.name == os.environ["PYTHON_TSP_TEST_VIDEO"]:
                    go_wrong()
                return read(reader, *arguments, **keywords)

            module.ClipReader.read = failing_read

        spec.loader.exec_module = exec_module
        return spec


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, _Patch())

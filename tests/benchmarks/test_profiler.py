"""The sampling profiler finds where time goes, and its picture shows it."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from benchmarks.profiler import draw, sampled


def long_work() -> None:
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        pass


def test_samples_fall_where_the_time_is_spent() -> None:
    stacks = sampled(long_work)
    assert any("long_work" in call for stack in stacks for call in stack)


def test_the_picture_shows_callers_above_what_they_call(tmp_path: Path) -> None:
    stacks = Counter({("a", "b<c>"): 3, ("a", "d"): 1, ("e",): 4})
    draw(stacks, tmp_path / "picture.svg", title="x & y")
    root = ElementTree.fromstring((tmp_path / "picture.svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    boxes = {}
    for group in root.iter(f"{space}g"):
        title, rectangle = group.find(f"{space}title"), group.find(f"{space}rect")
        assert title is not None
        assert rectangle is not None
        boxes[title.text] = (float(rectangle.get("x", 0)), float(rectangle.get("y", 0)))
    assert set(boxes) == {"a: 50.0%", "b<c>: 37.5%", "d: 12.5%", "e: 50.0%"}
    assert boxes["b<c>: 37.5%"][1] > boxes["a: 50.0%"][1] == boxes["e: 50.0%"][1]
    assert boxes["e: 50.0%"][0] == 600

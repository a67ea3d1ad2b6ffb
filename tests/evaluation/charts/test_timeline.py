"""Timelines: bars at their times in per cent, overlapping ones under one another."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.evaluation.detection.oracle import found, truth
from tests.evaluation.samples import thumbnails
from tsp_core.evaluation.blocks import Chart
from tsp_core.evaluation.charts.svg import CHARACTER_WIDTH
from tsp_core.evaluation.charts.timeline import timeline_chart

CLASSES = ("run", "</svg><b>")


def drawn(**changes: Any) -> Chart:
    options: dict[str, Any] = {
        "video": "a",
        "duration_seconds": 20.0,
        "actions": truth(("a", 0, 2.0, 7.0), ("a", 1, 5.0, 10.0), ("a", 0, 18.0, 25.0)),
        "detections": found(("a", 0, 2.5, 7.0, 0.9), ("a", 1, 0.0, 1.0, 0.8)),
        "is_right": np.array([True, False]),
        "actionness": (np.linspace(0, 20, 5), np.linspace(0, 1, 5)),
        "thumbnails": thumbnails(4),
        "classes": CLASSES,
        "colours": {0: "s0", 1: "none"},
        "file": "t.svg",
        "title": "a",
    }
    return timeline_chart(**{**options, **changes})


def bars(chart: Chart) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(f"<svg>{chart.body}</svg>")
    return [item for item in root.iter("svg") if item.find("title") is not None]


def test_bars_are_at_their_times_and_end_with_the_video() -> None:
    places = [(bar.attrib["x"], bar.attrib["width"]) for bar in bars(drawn())]
    assert places[:3] == [("10%", "25%"), ("25%", "25%"), ("90%", "10%")]


def test_actions_that_overlap_are_in_lanes_of_their_own() -> None:
    first, second, third = bars(drawn())[:3]
    assert first.attrib["y"] == third.attrib["y"] != second.attrib["y"]


def test_wrong_detections_are_outlined() -> None:
    right, wrong = bars(drawn())[3:]
    assert "fill" in right.find("rect").attrib["class"]  # type: ignore[union-attr]
    assert "hollow" in wrong.find("rect").attrib["class"]  # type: ignore[union-attr]
    assert right.find("title").text == "run, 2.5\N{EN DASH}7.0 s, score 0.90"  # type: ignore[union-attr]


def test_bars_have_the_colours_that_are_given() -> None:
    kinds = [bar.find("rect").attrib["class"] for bar in bars(drawn())]  # type: ignore[union-attr]
    assert kinds == ["fill s0", "fill none", "fill s0", "fill s0", "hollow none"]


def test_a_curve_of_many_points_keeps_its_peaks_and_no_more_than_is_seen() -> None:
    times = np.linspace(0, 20, 50_000)
    values = np.full(len(times), 0.5)
    values[31_234], values[40_001] = 1.0, 0.0
    chart = drawn(actionness=(times, values))
    root = ElementTree.fromstring(f"<svg>{chart.body}</svg>")
    line = next(path for path in root.iter("path") if path.attrib["class"] == "line s0")
    points = [pair.split() for pair in line.attrib["d"][1:].split("L")]
    assert len(points) <= 1002
    assert points[0][0] == "0"
    assert points[-1][0] == "1000"
    heights = {float(y): float(x) for x, y in points}
    assert heights[0.0] == pytest.approx(1000 * times[31_234] / 20, abs=0.01)
    assert heights[100.0] == pytest.approx(1000 * times[40_001] / 20, abs=0.01)


def test_the_times_of_a_long_video_do_not_run_into_each_other_on_a_phone() -> None:
    root = ElementTree.fromstring(f"<svg>{drawn(duration_seconds=123_456.0).body}</svg>")
    ticks = [t for t in root.iter("text") if t.attrib["x"].endswith("%")]
    assert len(ticks) >= 3
    places = [280 * float(t.attrib["x"].rstrip("%")) / 100 for t in ticks]
    widest = CHARACTER_WIDTH * max(len(t.text or "") for t in ticks)
    assert min(np.diff(places)) >= widest


def test_frames_are_side_by_side_over_the_whole_width() -> None:
    root = ElementTree.fromstring(f"<svg>{drawn().body}</svg>")
    strips = [item for item in root.iter("svg") if item.find("image") is not None]
    assert [strip.attrib["x"] for strip in strips] == ["0%", "25%", "50%", "75%"]


@pytest.mark.parametrize(
    "changes",
    [
        {"thumbnails": ()},
        {"actionness": None},
        {"detections": found(), "is_right": np.zeros(0, dtype=bool)},
        {"actionness": (np.array([0.5]), np.array([0.5])), "duration_seconds": 0.04},
    ],
    ids=["no frames", "no actionness", "no detections", "one row"],
)
def test_what_is_absent_is_left_out(changes: dict[str, Any]) -> None:
    chart = drawn(**changes)
    assert chart.fluid
    assert chart.height <= drawn().height
    assert ("detected: none" in chart.body) == ("detections" in changes)

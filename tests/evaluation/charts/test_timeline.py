"""Timelines: bars at their times in per cent, overlapping ones under one another."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.evaluation.detection.oracle import found, truth
from tests.evaluation.samples import thumbnails
from tsp_core.evaluation.blocks import Chart
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

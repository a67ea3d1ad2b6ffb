"""Matrices: every cell is drawn, and a video's similarity at its times."""

from __future__ import annotations

import base64
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.detection.oracle import truth
from tests.evaluation.localizers.made_up import sequence
from tsp_core.evaluation.blocks import Chart
from tsp_core.evaluation.charts.matrices import confusion_chart, similarity_chart
from tsp_core.evaluation.charts.svg import CHARACTER_WIDTH


def parsed(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(f"<svg>{chart.body}</svg>")


def image_of(chart: Chart) -> np.ndarray:
    """The picture as RGBA."""
    href = next(parsed(chart).iter("image")).attrib["href"]
    data = base64.b64decode(href.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


@pytest.mark.parametrize("count", [1, 2, 13, 60])
def test_confusion_of_few_and_many_classes_in_any_script(count: int) -> None:
    labels = [f"歩く {index} " + "long " * 20 for index in range(count)]
    chart = confusion_chart(np.eye(count, dtype=np.int64) * 7, labels, file="c.svg", title="C")
    cells = [r for r in parsed(chart).iter("rect") if "fill" in r.attrib["class"]]
    assert len(cells) == count
    assert chart.width <= 600
    for cell in cells:
        assert float(cell.attrib["x"]) + float(cell.attrib["width"]) <= chart.width
    assert sum(t.text == "7" for t in parsed(chart).iter("text")) == (count if count < 13 else 0)


def test_classes_that_begin_alike_are_told_apart() -> None:
    labels = [f"Preparing the ingredients for {dish}" for dish in ("cake", "salad", "soup")]
    chart = confusion_chart(np.eye(3, dtype=np.int64), labels, file="c.svg", title="C")
    names = [
        item.text for item in parsed(chart).iter("text") if "\N{HORIZONTAL ELLIPSIS}" in item.text
    ]
    assert len(names) == 6
    assert len(set(names)) == 3


def test_the_times_of_a_long_video_are_inside_the_picture() -> None:
    long = sequence("long", np.zeros((20, 4)), stride=10_000.0)
    chart = similarity_chart(long, None, (), colours={}, file="s.svg")
    at_left = [t for t in parsed(chart).iter("text") if t.attrib.get("text-anchor") == "end"]
    assert len(at_left) >= 3
    for item in at_left:
        assert float(item.attrib["x"]) >= CHARACTER_WIDTH * len(item.text or "")


def test_alike_rows_are_warm_and_unlike_ones_cold() -> None:
    features = np.repeat([[1.0, -1.0], [-1.0, 1.0]], 10, axis=0)
    chart = similarity_chart(sequence("a", features), None, ("run",), colours={}, file="s.svg")
    pixels = image_of(chart)
    assert pixels.shape[0] == pixels.shape[1]
    warm, cold = pixels[2, 2], pixels[2, -3]
    assert warm[0] > warm[2]
    assert cold[2] > cold[0]
    assert warm[3] == cold[3] == 255


def test_what_is_neither_lets_the_page_through() -> None:
    features = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    pixels = image_of(similarity_chart(sequence("a", features), None, (), colours={}, file="s.svg"))
    assert pixels[0, 5, 3] == 0


def test_actions_are_marked_at_their_times() -> None:
    features = np.random.default_rng(0).normal(size=(40, 4))
    actions = truth(("a", 1, 5.0, 15.0))
    chart = similarity_chart(
        sequence("a", features), actions, ("run", "jump"), colours={1: "s1"}, file="s.svg"
    )
    frame, bar, square = parsed(chart).iter("rect")
    width, left = float(frame.attrib["width"]), float(frame.attrib["x"])
    assert float(square.attrib["x"]) - left == pytest.approx(width / 4, abs=0.05)
    assert float(square.attrib["width"]) == pytest.approx(width / 2, abs=0.05)
    assert bar.find("title").text == "jump"  # type: ignore[union-attr]
    assert "s1" in bar.attrib["class"]


def test_long_videos_are_thinned_out() -> None:
    long = sequence("long", np.random.default_rng(0).normal(size=(2000, 4)))
    chart = similarity_chart(long, None, (), colours={}, file="s.svg")
    assert image_of(chart).shape[0] <= 440
    assert len(chart.body) < 300_000

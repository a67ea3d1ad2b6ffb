"""Charts put figures where they belong, and take names for text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tsp_core.evaluation.blocks import Chart
from tsp_core.evaluation.charts.axes import plain_tick, rounded_range, share_tick, ticks_between
from tsp_core.evaluation.charts.plots import Series, bar_chart, line_chart, scatter_chart
from tsp_core.evaluation.charts.svg import (
    CHARACTER_WIDTH,
    element,
    number,
    shortened,
    shortened_names,
)

HOSTILE = "</svg><script>alert('x')</script>"
WORDS = {"file": "x.svg", "title": "T", "description": "D"}


def parsed(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(f"<svg>{chart.body}</svg>")


def texts(chart: Chart) -> list[str]:
    return ["".join(item.itertext()) for item in parsed(chart).iter("text")]


def line(y: list[float], **options: object) -> Chart:
    series = Series(name=HOSTILE, x=np.arange(len(y)), y=np.array(y), colour=0)
    return line_chart([series], x_label="x", y_label="y", **WORDS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.0, 0.017), (-3.2, 7.9), (0.0, 7200.0), (0.49999, 0.50001)]
)
def test_ticks_are_round_inside_and_evenly_spaced(low: float, high: float) -> None:
    ticks = ticks_between(low, high)
    assert 3 <= len(ticks) <= 9
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])
    assert re.match(r"^[125]e", f"{steps[0]:.0e}")


@pytest.mark.parametrize("values", [[], [np.nan], [0.0], [3.0, 3.0], [-1.0, 5.0]])
def test_a_range_is_never_empty_and_holds_the_values(values: list[float]) -> None:
    low, high = rounded_range(values)
    assert low < high
    assert all(low <= value <= high for value in values if np.isfinite(value))


def test_ticks_are_written_for_people() -> None:
    assert plain_tick(-0.5) == "\N{MINUS SIGN}0.5"
    assert share_tick(0.125) == "12.5 %"
    assert number(-0.001) == "0"
    assert shortened("a  very\nlong label", 8) == "a very \N{HORIZONTAL ELLIPSIS}"


def test_large_numbers_are_written_out() -> None:
    assert plain_tick(1_200_000.0) == "1200000"


@pytest.mark.parametrize(
    "labels",
    [
        ["short", "also short"],
        ["a label that is too long", "another label that is too long"],
        [f"the same beginning and {number}" for number in range(30)],
        [f"the same beginning, {number}, and the same end" for number in range(30)],
        ["the same beginn\N{HORIZONTAL ELLIPSIS}", "the same beginning", "the same beginner"],
    ],
)
def test_different_names_stay_different(labels: list[str]) -> None:
    names = shortened_names(labels, 16)
    assert len(set(names)) == len(labels)
    assert all(len(name) <= 16 for name in names)
    for label, name in zip(labels, names, strict=True):
        assert name == label or (len(label) > 16 and "\N{HORIZONTAL ELLIPSIS}" in name)
    assert shortened_names([labels[0]] * 2, 16) == [shortened(labels[0], 16)] * 2


@pytest.mark.parametrize("ticks", [None, list(range(0, 1_200_000, 50_000))])
def test_texts_of_an_axis_stay_apart(ticks: list[int] | None) -> None:
    series = Series(name="a", x=np.array([0.0, 1.2e6]), y=np.array([0.0, 1.0]), colour=0)
    chart = line_chart([series], x_label="x", y_label="y", x_ticks=ticks, **WORDS)
    below = [t for t in parsed(chart).iter("text") if t.attrib.get("text-anchor") == "middle"]
    under = [t for t in below if t.attrib.get("class") == "soft"]
    assert len(under) >= 3
    places = [float(item.attrib["x"]) for item in under]
    assert min(np.diff(places)) > CHARACTER_WIDTH * max(len(item.text or "") for item in under)


def test_a_legend_of_many_long_names_takes_no_room_from_the_data() -> None:
    def drawn(count: int) -> tuple[Chart, float]:
        series = [
            Series(name=f"{'long ' * 20}{i}", x=np.arange(2), y=np.arange(2.0), colour=i)
            for i in range(count)
        ]
        chart = line_chart(series, x_label="x", y_label="y", **WORDS)
        heights = [float(c.attrib["cy"]) for c in parsed(chart).iter("circle")]
        return chart, max(heights) - min(heights)

    (one, room), (many, same_room) = drawn(1), drawn(20)
    assert same_room == pytest.approx(room, abs=1)
    assert many.height - one.height == 19 * 17
    names = [item for item in texts(many) if item.startswith("long")]
    assert len(set(names)) == 20
    assert all(58 + 19 + CHARACTER_WIDTH * len(name) <= many.width for name in names)


def test_text_and_attributes_are_escaped() -> None:
    written = element("text", HOSTILE, class_=f'"{HOSTILE}')
    assert "<script" not in written
    assert written.count("&lt;script&gt;") == 2
    assert HOSTILE in texts(line([1.0, 2.0]))


def test_what_is_not_finite_interrupts_a_line() -> None:
    chart = line([1.0, np.nan, 2.0, 3.0])
    path = next(p for p in parsed(chart).iter("path") if "line" in p.attrib["class"])
    assert re.sub(r"[0-9. ]+", "", path.attrib["d"]) == "MML"
    assert len(list(parsed(chart).iter("circle"))) == 3


def test_higher_values_are_further_up_and_inside() -> None:
    chart = line([0.1, 0.9], y_range=(0.0, 1.0), shares=True)
    low, high = [float(c.attrib["cy"]) for c in parsed(chart).iter("circle")]
    assert 0 < high < low < chart.height
    assert "20 %" in texts(chart)


def test_bars_are_as_high_as_their_values_and_absent_ones_a_dash() -> None:
    chart = bar_chart(
        [[0.2, 0.4], [None, 0.8]],
        names=["a", "b"],
        groups=[("one", "1"), ("two", "2")],
        y_label="y",
        colours=[0, 1],
        **WORDS,
    )
    heights = [float(bar.attrib["height"]) for bar in parsed(chart).iter("rect")]
    assert np.allclose(np.array(heights) / heights[0], [1, 2, 4], atol=0.01)
    assert "\N{EN DASH}" in texts(chart)


def test_every_point_is_drawn_once_in_its_colour() -> None:
    points = np.random.default_rng(0).normal(size=(50, 2))
    mask = np.arange(50) < 20
    chart = scatter_chart(
        points,
        [("background", "none", ~mask), ("run", "s0", mask), ("none of these", "s1", mask & ~mask)],
        x_label="x",
        y_label="y",
        **WORDS,
    )
    dots = {p.attrib["class"]: p.attrib["d"].count("h0") for p in parsed(chart).iter("path")}
    assert dots == {"dots none": 30, "dots s0": 20}


def test_a_long_legend_goes_on_in_the_next_line_and_pushes_the_chart_down() -> None:
    series = [
        Series(name="n" * 20, x=np.arange(2), y=np.arange(2.0), colour=index) for index in range(4)
    ]
    chart = line_chart(series, x_label="x", y_label="y", **WORDS)
    places = [item for item in parsed(chart).iter("text") if item.text == "n" * 20]
    assert len({item.attrib["y"] for item in places}) == 2
    ends = [float(item.attrib["x"]) + 20 * CHARACTER_WIDTH for item in places]
    assert max(ends) <= chart.width
    top = min(float(c.attrib["cy"]) for c in parsed(chart).iter("circle"))
    assert top > max(float(item.attrib["y"]) for item in places)

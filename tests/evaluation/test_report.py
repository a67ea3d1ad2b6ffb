"""The report: nothing of the data is taken for markup, and the page needs nothing but itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from tsp_core.evaluation.blocks import (
    Code,
    Column,
    Facts,
    Figures,
    Section,
    Table,
    Text,
    format_cell,
    format_duration,
    shortened_table,
)
from tsp_core.evaluation.heads import HeadScore, score_head
from tsp_core.evaluation.report import (
    Report,
    escape_markdown,
    render_chart,
    render_html,
    render_markdown,
    with_run_section,
)
from tsp_core.evaluation.sections.heads import heads_section
from tsp_core.evaluation.sections.timings import timings_section

HOSTILE = "<script>alert('x')</script> | **b** [l](http://e) `c` & $\\frac$\nnew"


def _score(labels: tuple[str, ...] = ("walk", HOSTILE)) -> HeadScore:
    score = score_head(np.eye(len(labels)), np.arange(len(labels)), labels)
    assert score is not None
    return score


def _report() -> Report:
    heads = heads_section({"action": _score()}, subset=HOSTILE, notes=[HOSTILE])
    other = Section(
        key="other",
        title="Other",
        blocks=(
            Facts(facts=((HOSTILE, HOSTILE),)),
            Code(title="Code", text=f"``` fence\n{HOSTILE}"),
            Table(title="Empty", columns=(Column(name="x"),), rows=(), note=HOSTILE),
            Text(text=HOSTILE),
        ),
    )
    figures = Figures(figures=((HOSTILE, "87.0 %", HOSTILE),))
    return Report(title=HOSTILE, figures=figures, sections=(heads, other))


class _Page(HTMLParser):
    """Collects tags and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    text = render_html(_report())
    tags = _Page(text).tags
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in tags}
    assert not any("src" in attributes for _, attributes in tags)
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert links == ["#heads", "#other"]
    assert "url(" not in text
    assert "@import" not in text


def test_every_text_of_the_data_is_escaped_in_html() -> None:
    text = render_html(_report())
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 8


def test_every_chart_has_a_description() -> None:
    tags = _Page(render_html(_report())).tags
    charts = [attributes for _, attributes in tags if attributes.get("class") == "chart"]
    assert charts
    assert all(chart["aria-label"] and chart["role"] == "img" for chart in charts)


def test_markdown_tables_keep_their_shape() -> None:
    text = render_markdown(_report())
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        cells = [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()]
        assert len(set(cells)) == 1, table


def test_markdown_takes_no_markup_from_the_data() -> None:
    text = render_markdown(_report())
    outside_code = text[: text.index("````")] + text[text.rindex("````") :]
    assert not re.search(r"(?<!\\)<script|(?<!\\)\*\*b|(?<!\\)\[l\]|(?<!\\)`c", outside_code)
    assert text.count("````") == 2, "a fence in the text does not end the block"
    assert "](confusion.svg)" in text


def test_the_same_report_gives_the_same_bytes() -> None:
    assert render_html(_report()) == render_html(_report())
    assert render_markdown(_report()) == render_markdown(_report())


def test_charts_as_files_are_xml_with_their_own_colours() -> None:
    for chart in _report().charts:
        text = render_chart(chart)
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert int(root.attrib["width"]) >= chart.width
        assert b"prefers-color-scheme: dark" in text
        assert text == render_chart(chart)


def test_a_section_about_a_run_is_put_after_all_others() -> None:
    page = render_html(_report())
    text = with_run_section(page, timings_section({"ingest": 3.21, "gvf": None}))
    assert page.count("<section") + 1 == text.count("<section")
    assert text.index('id="timings"') > text.index('id="other"')
    assert "3.2 s" in text
    assert text.index("</section>", text.index('id="timings"')) < text.index("</main>")


def test_escaped_markdown_is_one_line() -> None:
    assert escape_markdown("a\n| b_c") == r"a \| b\_c"


def test_long_tables_are_shortened_and_say_so() -> None:
    rows = [(index,) for index in range(1200)]
    table = shortened_table("T", [Column(name="n")], rows, limit=3, rest_in="x.parquet")
    assert table.rows == ((0,), (1,), (2,))
    assert table.note == "3 of 1,200 rows; all are in x.parquet"
    assert shortened_table("T", [Column(name="n")], rows[:3], limit=3, rest_in="x").note == ""


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "share", "\N{EN DASH}"),
        (0.876, "share", "87.6 %"),
        (1234, "count", "1,234"),
        (1.23456, "number", "1.23"),
        (1234.5, "number", "1,234"),
        ("x", "number", "x"),
    ],
)
def test_cells_are_written_for_people(value: float | str | None, kind: str, text: str) -> None:
    assert format_cell(value, kind) == text  # type: ignore[arg-type]


def test_durations_are_written_in_the_unit_that_suits() -> None:
    assert [format_duration(seconds) for seconds in (3.21, 600, 7200 * 10)] == [
        "3.2 s",
        "10.0 min",
        "20.0 h",
    ]

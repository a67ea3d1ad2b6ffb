"""Renders sections as one self-contained HTML page and as Markdown.

The page loads nothing: styles and charts are inside. Text of annotations and file names is
untrusted and escaped in both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from tsp_core.evaluation.blocks import Chart, Charts, Figures, Section, format_cell
from tsp_core.evaluation.charts.svg import element

_RUN_PLACE = "<!-- sections about a run come here -->"
_MARGIN = 10  # pixels around a chart in a file of its own
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&])")


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole report.

    Attributes:
        title: Its heading.
        figures: What a reader looks for first.
        sections: In order.
    """

    title: str
    figures: Figures
    sections: tuple[Section, ...]

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Every chart, which the Markdown page expects beside it."""
        blocks = [block for section in self.sections for block in section.blocks]
        return tuple(
            chart for block in blocks if isinstance(block, Charts) for chart in block.charts
        )


def render_html(report: Report) -> str:
    """Render one HTML page that opens from disk without a network."""
    return _environment().get_template("report.html").render(report=report)


def with_run_section(page: str, section: Section) -> str:
    """Put a section about a run into a rendered page, after all others."""
    template = _environment().get_template("report_parts.html")
    rendered = str(template.module.section(section))  # type: ignore[attr-defined]
    return page.replace(_RUN_PLACE, rendered, 1)


def render_markdown(report: Report) -> str:
    """Render Markdown; charts are linked by their file names."""
    text = _environment().get_template("report.md").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text)


def render_chart(chart: Chart) -> bytes:
    """Render a chart as an SVG file of its own, with its colours for light and dark."""
    style = _environment().get_template("chart.css").render()
    body = element(
        "svg",
        element("style", Markup(style)),  # noqa: S704 - a template without data in it
        element("rect", width="100%", height="100%", style="fill:var(--paper)"),
        element(
            "svg",
            chart.body,
            x=_MARGIN,
            y=_MARGIN,
            width=chart.width,
            height=chart.height,
        ),
        xmlns="http://www.w3.org/2000/svg",
        class_="chart",
        width=chart.width + 2 * _MARGIN,
        height=chart.height + 2 * _MARGIN,
    )
    return body.encode()


def escape_markdown(text: str) -> str:
    """Make text stand for itself in Markdown, table cells included."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tsp_core.evaluation", "templates"),
        autoescape=select_autoescape(["html"]),  # Markdown escapes with its own filter
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = format_cell
    environment.filters["markdown"] = escape_markdown
    environment.filters["svg"] = _inline_svg
    environment.filters["caption"] = _caption
    environment.filters["fenced"] = _fenced
    return environment


def _inline_svg(chart: Chart) -> Markup:
    """A chart inside the page, which gives it its colours."""
    size: dict[str, str | float] = {
        "viewBox": f"0 0 {chart.width} {chart.height}",
        "style": f"max-width:{1.3 * chart.width:.0f}px",
    }
    if chart.fluid:
        size = {"width": "100%", "height": chart.height}
    return element(
        "svg", chart.body, class_="chart", role="img", aria_label=chart.description, **size
    )


def _caption(text: str) -> str:
    """Text for the brackets of a picture in Markdown."""
    return escape_markdown(text.translate({ord("["): "(", ord("]"): ")"}))


def _fenced(text: str) -> str:
    """Put text into a code block whose fence does not occur in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"

"""Renders sections as one self-contained HTML page and as Markdown.

The page loads nothing: styles and pictures are inside. Text of annotations and file names is
untrusted and escaped in both.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from tsp_core.evaluation.blocks import Figures, Picture, Section, format_cell

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
    def pictures(self) -> tuple[Picture, ...]:
        """Every picture, which the Markdown page expects beside it."""
        blocks = [block for section in self.sections for block in section.blocks]
        return tuple(block for block in blocks if isinstance(block, Picture))


def render_html(report: Report) -> str:
    """Render one HTML page that opens from disk without a network."""
    return _environment().get_template("report.html").render(report=report)


def render_markdown(report: Report) -> str:
    """Render Markdown; pictures are linked by their file names."""
    text = _environment().get_template("report.md").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text)


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
    environment.filters["data_uri"] = _data_uri
    environment.filters["fenced"] = _fenced
    return environment


def _data_uri(png: bytes) -> Markup:
    return Markup("data:image/png;base64,") + base64.b64encode(png).decode()


def _fenced(text: str) -> str:
    """Put text into a code block whose fence does not occur in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"

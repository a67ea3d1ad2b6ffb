"""Elements of SVG as escaped text, with equal text for equal figures.

Colours are classes (`s0` ... `s7` for series, `ink`, `soft`, `grid`), which `templates/chart.css`
gives a value for light and for dark pages.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup, escape

NUM_COLOURS = 8
"""Colours of series; more series begin again."""

CHARACTER_WIDTH = 6.1
"""Pixels of a character of the charts' 11 pixel type, on average."""


def element(name: str, *children: Markup | str, **attributes: str | float | None) -> Markup:
    """Write one element.

    Args:
        name: Of the element.
        children: Markup is taken as it is, other text is escaped.
        attributes: A trailing underscore is dropped, others become dashes; None is left out.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value))
        for key, value in attributes.items()
        if value is not None
    )
    content = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, content)


def group(*children: Markup | str, **attributes: str | float | None) -> Markup:
    """Write a group of elements."""
    return element("g", *children, **attributes)


def text(content: str, x: float | str, y: float, **attributes: str | float | None) -> Markup:
    """Write text; its class is `soft` unless another is given."""
    return element("text", content, x=x, y=y, **{"class_": "soft", **attributes})


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Write a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def colour(index: int) -> str:
    """Class of the colour of a series or an action class."""
    return f"s{index % NUM_COLOURS}"


def number(value: float) -> str:
    """Write a coordinate with as few digits as two decimals need."""
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def shortened(label: str, max_characters: int) -> str:
    """One line of at most this many characters."""
    label = " ".join(label.split())
    return (
        label
        if len(label) <= max_characters
        else f"{label[: max_characters - 1]}\N{HORIZONTAL ELLIPSIS}"
    )


def shortened_names(labels: Sequence[str], max_characters: int) -> list[str]:
    """Each label on one line of at most this many characters; different ones stay different.

    Labels that begin alike lose their middle; those that end alike too are numbered.
    """
    remaining = list(dict.fromkeys(labels))
    chosen: dict[str, str] = {}
    for tail in (0, max_characters // 3, max_characters // 2, 3 * max_characters // 4):
        found = {label: _without_middle(label, max_characters, tail) for label in remaining}
        counts = Counter([*chosen.values(), *found.values()])
        chosen |= {label: name for label, name in found.items() if counts[name] == 1}
        remaining = [label for label in remaining if label not in chosen]
    taken, number = set(chosen.values()), 0
    for label in remaining:
        name = ""
        while not name or name in taken:
            number += 1
            name = f"{shortened(label, max_characters - len(str(number)))}{number}"
        chosen[label] = name
        taken.add(name)
    return [chosen[label] for label in labels]


def _without_middle(label: str, max_characters: int, tail: int) -> str:
    line = " ".join(label.split())
    if len(line) <= max_characters or tail == 0:
        return shortened(line, max_characters)
    return f"{line[: max_characters - tail - 1]}\N{HORIZONTAL ELLIPSIS}{line[-tail:]}"


def data_uri(data: bytes, kind: str) -> str:
    """A picture as `data:` URI; `kind` is "png", "jpeg" or "svg+xml"."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _value(value: str | float | None) -> str:
    return number(value) if isinstance(value, int | float) else str(value)

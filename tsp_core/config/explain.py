"""Says what is wrong with a configuration in words for the person who wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from tsp_core.config import Config
from tsp_core.config.base import section_of, union_of

_MESSAGES = {
    "model_type": "expected the section's keys below it, as in `export: {stride: 8}`",
    "string_type": "expected a text; where it is one, write it in quotes",
    "tuple_type": "expected a list, as in [a, b]",
}
"""What pydantic says in words that are Python's."""

_FORMS = {
    str: "one text",
    tuple: "a list of texts, [a, b]",
    dict: "a mapping of texts, {name: text}",
}


def explain(error: ValidationError, source: str) -> str:
    """Write what is wrong with a configuration, a line for each wrong key.

    Args:
        error: Of the model `Config`.
        source: What the lines name.
    """
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False):
        location, forms = _key_and_forms(item["loc"])
        key = ".".join(str(part) for part in location) or "(top level)"
        if key in lines:
            continue
        if item["type"] == "extra_forbidden":
            lines[key] = f"{source}: {key}: unknown key{_suggest(location)}"
            continue
        message = _MESSAGES.get(item["type"], item["msg"].removeprefix("Value error, "))
        if forms:
            message = f"expected {' or '.join(forms)}"
        value = "" if isinstance(item["input"], (dict, BaseModel)) else f" {item['input']!r}:"
        lines[key] = f"{source}: {key}:{value} {message}"
    return "\n".join(lines.values())


def _key_and_forms(location: Sequence[int | str]) -> tuple[Sequence[int | str], list[str]]:
    """The key of an error; where it may have several forms, also these.

    Pydantic reports one error per form, at a place named after the form.
    """
    model: type[BaseModel] | None = Config
    for depth, part in enumerate(location[:-1], start=1):
        field = model.model_fields.get(str(part)) if model is not None else None
        if field is None:
            break
        forms = union_of(field.annotation)
        if len(forms) > 1:
            return location[:depth], [_FORMS.get(get_origin(form) or form, "") for form in forms]
        model = section_of(field.annotation)
    return location, []


def _suggest(location: Sequence[int | str]) -> str:
    model: Any = Config
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type):
            return ""
        model = field.annotation
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known keys: {', '.join(known)}"

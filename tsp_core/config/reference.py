"""Writes the configuration reference, `docs/configuration.md`, from the configuration models.

Run as `python -m tsp_core.config.reference FILE`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from tsp_core.config import Config
from tsp_core.config.base import section_of

_HEAD = """# Configuration

One YAML file describes a dataset's pipeline. Every key has a default except `root`,
`ingest.videos` and `annotate.annotations`. Relative paths are taken from the file's folder;
`${NAME}` and `${NAME:-default}` are replaced by environment variables. On the command line,
`--set section.key=value` overrides a key.

*Changes results*: a change of this key makes the stage, and what depends on it, run again. The
others only say how the work is done.

This page is generated from the models in `tsp_core/config/` by `make docs`.
"""


def reference() -> str:
    """The reference as Markdown."""
    return "\n".join([_HEAD, _section("Top level", Config), *_sections_in(Config)])


def _sections_in(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The sections of a model, each followed by those in it."""
    for name, field in model.model_fields.items():
        if (section := section_of(field.annotation)) is not None:
            yield _section(f"`{prefix}{name}`", section)
            yield from _sections_in(section, f"{prefix}{name}.")


def _section(title: str, model: type[BaseModel]) -> str:
    lines = [f"## {title}", "", inspect.cleandoc(model.__doc__ or ""), ""]
    lines += ["| Key | Type | Default | Changes results | Meaning |", "|---|---|---|---|---|"]
    schema = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if section_of(field.annotation) is None:
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            cells = [
                f"`{name}`",
                _choices(schema[name]) or _type_name(field.annotation),
                f"`{_default(field.default)}`",
                "no" if extra.get("runtime") or model.__name__ in _NEVER else "yes",
                field.description or "",
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _choices(schema: dict[str, Any]) -> str:
    """The names that a field offers, where it takes a name of a registry."""
    if "enum" in schema:
        return " or ".join(f"`{item}`" for item in schema["enum"])
    inner = _choices(schema["items"]) if isinstance(schema.get("items"), dict) else ""
    return f"list of {inner}" if inner else ""


_NEVER = {"Config", "RuntimeConfig"}


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type_name(annotation: Any) -> str:
    arguments = get_args(annotation)
    if not arguments:
        return "none" if annotation is type(None) else getattr(annotation, "__name__", "any")
    if all(isinstance(item, str) for item in arguments):
        return " or ".join(f"`{item}`" for item in arguments)
    origin = getattr(get_origin(annotation), "__name__", "")
    if origin == "tuple":
        return f"list of {_type_name(arguments[0])}"
    if origin == "dict":
        return "mapping"
    names = [_type_name(item) for item in arguments if item is not type(None)]
    if origin == "Annotated":
        return names[0]
    return " or ".join(dict.fromkeys(names))


def main(arguments: list[str]) -> int:
    """Write the reference to the file named by the only argument."""
    if len(arguments) != 1:
        print("usage: python -m tsp_core.config.reference FILE", file=sys.stderr)
        return 2
    Path(arguments[0]).write_text(reference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Options that several commands of `tsp` share, and what their completion offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import typer
from pydantic import BaseModel

from tsp_core.config import Config
from tsp_core.config.base import section_of
from tsp_core.extensions import Names


def complete_config(incomplete: str) -> Iterator[str]:
    """Offer folders and YAML files."""
    from pathlib import Path

    folder, _, start = incomplete.rpartition("/")
    prefix = f"{folder}/" if "/" in incomplete else ""
    for path in sorted(Path(prefix or ".").glob(f"{start}*")):
        if path.is_dir():
            yield f"{prefix}{path.name}/"
        elif path.suffix in (".yaml", ".yml"):
            yield f"{prefix}{path.name}"


def complete_assignment(incomplete: str) -> Iterator[tuple[str, str]]:
    """Offer the keys of the configuration, with their descriptions."""
    for key, description in config_keys():
        if key.startswith(incomplete):
            yield f"{key}=", description


def config_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str]]:
    """List all keys with dots in them, and what each is."""
    for name, field in model.model_fields.items():
        if (section := section_of(field.annotation)) is not None:
            yield from config_keys(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.description or ""


def complete_checkpoint(incomplete: str) -> Iterator[str]:
    """Offer the names of published weights; files are the shell's to complete."""
    from tsp_core.model.published import released_files

    for name in ("kinetics", "random:0", *released_files()):
        if name.startswith(incomplete):
            yield name


def names_of(names: Names) -> Callable[[str], list[str]]:
    """Offer the names of a registry."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG", help="Path or URI of a YAML file.", autocompletion=complete_config
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, as in export.stride=8.",
        autocompletion=complete_assignment,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, for scripts.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress; warnings and results only.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done and why, and do nothing.")
]
ExtensionOption = Annotated[
    list[str] | None,
    typer.Option("--extension", metavar="MODULE", help="Import encoders or formats; repeatable."),
]

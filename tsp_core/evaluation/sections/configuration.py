"""What the run was: the whole configuration, the artifacts it read, and the versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import yaml
from pydantic import BaseModel

from tsp_core import storage
from tsp_core.config import Config
from tsp_core.evaluation.blocks import Code, Column, Facts, Section, Table, Text

_PACKAGES = ("tsp-pipeline", "torch", "torchvision", "av", "numpy", "pyarrow")


def configuration_section(
    shown: Mapping[str, Any], artifacts: Mapping[str, str], *, name: str
) -> Section:
    """Describe the run.

    Args:
        shown: From `shown_configuration`.
        artifacts: Fingerprint of each stage's artifact.
        name: Of the data set.
    """
    text = yaml.safe_dump(dict(shown), sort_keys=False, allow_unicode=True)
    versions = [("Python", platform.python_version())]
    versions += [(package, version(package)) for package in _PACKAGES]
    return Section(
        key="configuration",
        title="Configuration and versions",
        blocks=(
            Code(title="Everything that determines the result", text=text),
            Table(
                title="Artifacts",
                columns=(Column(name="Stage"), Column(name="Folder below the root")),
                rows=tuple((stage, f"{stage}/{name}") for stage, name in artifacts.items()),
            ),
            Facts(facts=tuple(versions)),
            Text(
                text=f"How long the stages took is of a run, not of its result: "
                f"runs/{name}.report.html is this page with the times."
            ),
        ),
    )


def shown_configuration(config: Config) -> dict[str, Any]:
    """The configuration as it is shown: what determines the result, local folders left out.

    Equal for copies of a data set in different places, so that their reports are equal.
    """
    shown = _shown(config)
    del shown["runtime"], shown["root"]
    if not config.study.variants:
        del shown["study"]
    return shown


def _shown(section: BaseModel) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        value = getattr(section, name)
        if extra.get("runtime"):
            continue
        if isinstance(value, BaseModel):
            values[name] = _shown(value)
        elif extra.get("uri") or name in {"weights", "checkpoint"}:
            values[name] = _without_folder(value)
        elif isinstance(value, dict) or name == "extensions":
            values[name] = _without_folders(value)
        else:
            values[name] = list(value) if isinstance(value, tuple) else value
    return values


def _without_folders(value: Any) -> Any:
    """A study's changes or extensions, with the paths among them made short."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(item) for item in value]
    return _without_folder(value) if isinstance(value, str) and "/" in value else value


def _without_folder(value: Any) -> Any:
    if isinstance(value, str):
        if not storage.is_local(value):
            return storage.redact(value)
        return value.rstrip("/").rpartition("/")[2]
    if isinstance(value, dict):
        return {key: _without_folder(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folder(item) for item in value]
    return value

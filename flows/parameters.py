"""The flows' parameters: one optional model per section of the configuration.

A parameter holds what differs from the file; what it leaves out stays as in the file. Its model
has the fields of the section and says no defaults in its JSON schema, so that a form in the Prefect
UI that was opened and left alone overrides nothing. Checks across fields wait until the parameter
is merged with the file.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, model_validator

from tsp_core.config import (
    AnnotateConfig,
    ClipConfig,
    Config,
    EncoderConfig,
    EvaluateConfig,
    ExportConfig,
    GvfConfig,
    IndexConfig,
    IngestConfig,
    PretrainConfig,
    RuntimeConfig,
    Section,
    StudyConfig,
)
from tsp_core.config import io as config_io


def _without_defaults(schema: dict[str, Any]) -> None:
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


class _Changes(Section):
    """Its title is what the form's button says: "changes", beside "None"."""

    model_config = ConfigDict(json_schema_extra=_without_defaults, title="changes")


class ClipChanges(_Changes, ClipConfig):
    """What one clip is, where it differs from the file."""

    @model_validator(mode="after")
    def _crop_fits(self) -> ClipChanges:
        return self  # a crop that fits the file's frame need not fit the default one


class EncoderChanges(_Changes, EncoderConfig):
    """The encoder and its initial weights, where they differ from the file."""


class IngestChanges(_Changes, IngestConfig):
    """Where the videos are and when one is refused, where it differs from the file."""


class AnnotateChanges(_Changes, AnnotateConfig):
    """The annotations and background segments, where they differ from the file."""


class IndexChanges(_Changes, IndexConfig):
    """The clip index, where it differs from the file."""


class GvfChanges(_Changes, GvfConfig):
    """Global video features, where they differ from the file."""


class PretrainChanges(_Changes, PretrainConfig):
    """Pretraining, where it differs from the file."""


class ExportChanges(_Changes, ExportConfig):
    """The exported features, where they differ from the file."""


class EvaluateChanges(_Changes, EvaluateConfig):
    """The evaluation, where it differs from the file."""


class RuntimeChanges(_Changes, RuntimeConfig):
    """How the work is done on this machine, where it differs from the file."""


class StudyChanges(_Changes, StudyConfig):
    """The variants and seeds, where they differ from the file."""

    @model_validator(mode="after")
    def _is_whole(self) -> StudyChanges:
        return self  # the baseline may be one of the file's variants


def load(config: str, **changes: Any) -> Config:
    """Read the configuration of a flow run: the file, then what its parameters change.

    Raises:
        ConfigError: Naming the file, the key, the value and the fix.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    return config_io.load_config(config, overrides=given)

"""What the configuration's sections are built from: their base class, marks and number types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from tsp_core import extensions
from tsp_core.extensions import Names

RUNTIME: dict[str, Any] = {"runtime": True}
"""Marks a field that cannot change any artifact's content."""

LATER: dict[str, Any] = {"later": True}
"""Marks a field that came after the first artifacts were made; null means what they did."""

URI: dict[str, Any] = {"uri": True}
"""Marks a field that holds a path or URI; relative ones are taken from the file's folder."""

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction01 = Annotated[float, Field(ge=0, le=1)]


def _one_of(names: Names) -> tuple[AfterValidator, WithJsonSchema]:
    """A known name; forms offer the project's own."""
    schema = {"type": "string", "enum": list(names.builtin)}
    return AfterValidator(names.known), WithJsonSchema(schema)


EncoderName = Annotated[str, *_one_of(extensions.ENCODERS)]
AnnotationFormat = Annotated[str, *_one_of(extensions.ANNOTATION_FORMATS)]
FeatureFormat = Annotated[str, *_one_of(extensions.FEATURE_FORMATS)]


class Section(BaseModel):
    """Base of all configuration models: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def recipe_fields(section: BaseModel) -> dict[str, Any]:
    """Fields of a section that determine an artifact's content, as plain JSON values."""
    left_out = set()
    for name, field in type(section).model_fields.items():
        marks = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if marks.get("runtime") or (marks.get("later") and getattr(section, name) is None):
            left_out.add(name)
    return section.model_dump(mode="json", exclude=left_out)

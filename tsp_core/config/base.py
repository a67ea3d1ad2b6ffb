"""What the configuration's sections are built from: their base class, marks and number types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

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

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """Take one text for a list of texts; refuse what YAML makes of a slip of the pen."""
        assert info.field_name is not None
        annotation = cls.model_fields[info.field_name].annotation
        if (item := text_item_of(annotation)) is not None:
            value = _texts(value, item)
        elif _counts(annotation):
            _refuse_booleans(value)
        return value


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that is a section of its own."""
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None


def union_of(annotation: Any) -> tuple[Any, ...]:
    """The forms that a field's value may have besides null; one unless it is a union."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(form for form in get_args(annotation) if form is not type(None))
    return (annotation,)


def text_item_of(annotation: Any) -> Any:
    """What the items are where a field is a list of texts (and nothing else), else None."""
    forms = union_of(annotation)
    if len(forms) != 1 or get_origin(forms[0]) is not tuple:
        return None
    item = get_args(forms[0])[0]
    return item if set(_plain_types(item)) == {str} else None


def _plain_types(annotation: Any) -> Iterator[Any]:
    """The types that a value is made of, through unions, lists and marks."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        yield from (type(choice) for choice in arguments)
    elif get_origin(annotation) is Annotated:
        yield from _plain_types(arguments[0])
    elif arguments:
        for argument in arguments:
            yield from _plain_types(argument)
    else:
        yield annotation


def _texts(value: Any, item: Any) -> Any:
    """A list of texts, each once. Names have no commas, so that these may part them."""
    if isinstance(value, str):
        if "," in value and item is str:
            raise ValueError("expected a list; write it as [a, b]")
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, (list, tuple)) and (doubled := _doubled(value)):
        raise ValueError(f"{', '.join(map(repr, doubled))} appears twice; give each once")
    return value


def _doubled(values: Iterable[Any]) -> list[str]:
    texts = [value for value in values if isinstance(value, str)]
    return sorted({text for text in texts if texts.count(text) > 1})


def _counts(annotation: Any) -> bool:
    """Tell whether a field holds numbers, and no truth values."""
    types = set(_plain_types(annotation))
    return bool(types & {int, float}) and bool not in types


def _refuse_booleans(value: Any) -> None:
    """YAML reads yes, no, on and off as truth values, which Python takes for 1 and 0."""
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, bool):
            raise ValueError("expected a number, not a truth value (yes, no, on, off, true, false)")


def recipe_fields(section: BaseModel) -> dict[str, Any]:
    """Fields of a section that determine an artifact's content, as plain JSON values."""
    left_out = set()
    for name, field in type(section).model_fields.items():
        marks = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if marks.get("runtime") or (marks.get("later") and getattr(section, name) is None):
            left_out.add(name)
    return section.model_dump(mode="json", exclude=left_out)

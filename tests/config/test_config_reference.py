"""The generated page is that of the models as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from tests.conftest import REPOSITORY
from tsp_core.config import Config
from tsp_core.config.reference import main, reference


def test_page_in_docs_is_current():
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference(), "run `make docs`"


def test_every_key_is_described():
    text = reference()
    for section, field in Config.model_fields.items():
        for name, key in keys_of(field.annotation):
            assert key.description, f"{section}.{name} has no description"
            assert f"| `{name}` |" in text


def keys_of(model: Any) -> Iterator[tuple[str, FieldInfo]]:
    """All keys of a section and of the sections in it."""
    for name, key in getattr(model, "model_fields", {}).items():
        inner = list(keys_of(key.annotation))
        yield from inner or [(name, key)]


def test_command_needs_one_file(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err

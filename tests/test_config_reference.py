"""The generated page is that of the models as they are."""

from __future__ import annotations

from tests.conftest import REPOSITORY
from tsp_core.config import Config
from tsp_core.config_reference import main, reference


def test_page_in_docs_is_current():
    page = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference(), "run `make docs`"


def test_every_key_is_described():
    text = reference()
    for section, field in Config.model_fields.items():
        model = field.annotation
        for name, key in getattr(model, "model_fields", {}).items():
            assert key.description, f"{section}.{name} has no description"
            assert f"`{name}`" in text


def test_command_needs_one_file(capsys):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err

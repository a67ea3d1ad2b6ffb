"""Recipes: the files that downstream localization and captioning codebases read, ready to use.

One file per codebase; a new one is a class with `write` and `close`, one line here, and its name
in `tsp_core.config.ExportConfig.recipes`. What each reader expects, with its source, and the
commands that a user types are in `docs/features.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tsp_core.features.formats import FeatureWriter
from tsp_core.features.recipes.actionformer import ActionFormerRecipe
from tsp_core.features.recipes.base import RecipeContext
from tsp_core.features.recipes.bmn import BmnRecipe
from tsp_core.features.recipes.bmt import BmtRecipe
from tsp_core.features.recipes.gtad import GtadRecipe
from tsp_core.features.recipes.opentad import OpenTadRecipe
from tsp_core.features.recipes.pgcn import PgcnRecipe


class RecipeClass(Protocol):
    """Opens a recipe in a folder that exists."""

    def __call__(self, folder: Path, context: RecipeContext) -> FeatureWriter: ...


RECIPES: Mapping[str, RecipeClass] = {
    "actionformer": ActionFormerRecipe,
    "opentad": OpenTadRecipe,
    "gtad": GtadRecipe,
    "bmn": BmnRecipe,
    "pgcn": PgcnRecipe,
    "bmt": BmtRecipe,
}
"""Recipes by name."""

"""A folder of exported features: formats, downstream recipes, manifest; written video by video.

The export stage and `tsp features` share it. Memory is bounded by one video's features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tsp_core.features.formats import FeatureWriter, find_format
from tsp_core.features.manifest import FeatureSource, ManifestWriter, Quarantined
from tsp_core.features.recipes import RECIPES
from tsp_core.features.recipes.base import RecipeContext
from tsp_core.features.rows import FeatureRows, VideoFacts

_FOLDERS: Mapping[str, str] = {"h5": "", "parquet": ""}


def folder_of_format(name: str) -> str:
    """Where a format lies in an artifact of several: in a folder of its name, if not in one file.

    Args:
        name: Of a format, the project's own or an extension's.
    """
    return _FOLDERS.get(name, name)


class FeatureFolder:
    """Writes the features of many videos; add them in the order of their names, then close.

    As a context it lets go of its files after an error; what they hold then is of no use.

    Args:
        folder: An empty local folder.
        source: How the features were computed.
        formats: Folder of each format, relative to `folder`.
        recipes: Names of downstream recipes; they go below `recipes/<name>`.
        context: What the recipes need to know; required when there are any.
    """

    def __init__(
        self,
        folder: Path,
        source: FeatureSource,
        formats: Mapping[str, str],
        *,
        recipes: Sequence[str] = (),
        context: RecipeContext | None = None,
    ) -> None:
        self._folder = folder
        self._writers: list[FeatureWriter] = []
        files: dict[str, str] = {}
        for name, below in formats.items():
            format = find_format(name)
            files[name] = (Path(below) / format.layout).as_posix()
            self._writers.append(format.writer(_made(folder / below), source.feature_size))
        for name in recipes:
            assert context is not None, "recipes need a context"
            self._writers.append(RECIPES[name](_made(folder / "recipes" / name), context))
        self._manifest = ManifestWriter(folder, source, files)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(Exception):
                self.close({})

    @property
    def num_rows(self) -> int:
        """Rows of all videos so far."""
        return self._manifest.num_rows

    def write(self, rows: FeatureRows, facts: VideoFacts) -> None:
        """Add one video to every format and recipe."""
        for writer in self._writers:
            writer.write(rows, facts)
        self._manifest.write(rows, facts)

    def close(self, quarantined: Mapping[str, Quarantined]) -> dict[str, Path]:
        """Complete all files.

        Returns:
            Local path of each file by its relative name.
        """
        for writer in self._writers:
            writer.close()
        self._manifest.close(quarantined)
        paths = sorted(path for path in self._folder.rglob("*") if path.is_file())
        return {path.relative_to(self._folder).as_posix(): path for path in paths}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder

"""The order of the training runs of one dataset and configuration, whatever the videos.

`ROOT/training/history/KEY/NNNNNN-FINGERPRINT.json` is written when a run begins. The policy
`retrain: never` keeps the newest run that was finished; KEY holds the dataset's name, so that
datasets with one root never take each other's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence

from tsp_core import artifacts, storage
from tsp_core.artifacts import ArtifactRef, Recipe, fingerprint_of
from tsp_core.errors import ArtifactError


def remember(root: str, dataset: str, recipe: Recipe, classes: Sequence[str]) -> None:
    """Note that a run begins; its record's name sorts after those of all earlier runs."""
    folder = _folder(root, dataset, recipe, classes)
    names = _names(folder)
    if not names or not names[-1].endswith(recipe.fingerprint):
        number = int(names[-1].split("-")[0]) + 1 if names else 0
        name = f"{number:06d}-{recipe.fingerprint}"
        text = json.dumps(recipe.model_dump(mode="json"), indent=1, sort_keys=True)
        storage.write_bytes(storage.join(folder, f"{name}.json"), text.encode())


def newest(root: str, dataset: str, recipe: Recipe, classes: Sequence[str]) -> ArtifactRef | None:
    """The artifact of the latest finished run of a recipe's configuration, on any data."""
    for name in reversed(_names(_folder(root, dataset, recipe, classes))):
        uri = storage.join(root, recipe.stage, name.rsplit("-", 1)[-1])
        with contextlib.suppress(ArtifactError):  # it was never finished, or pruned
            return artifacts.open_artifact(uri, recipe.stage)
    return None


def run_of(recipe: Recipe, number: int) -> Recipe:
    """The recipe of run `number`, counted from 0, with the settings and data of another run."""
    config = {name: value for name, value in recipe.config.items() if name != "run"}
    return recipe.model_copy(update={"config": config | ({"run": number} if number else {})})


def last_published(root: str, dataset: str, recipe: Recipe, classes: Sequence[str]) -> Recipe:
    """The recipe of the latest published run with these settings and data; else the first run's.

    Those before it may have been pruned.
    """
    names = _names(_folder(root, dataset, recipe, classes))
    known = {name.rsplit("-", 1)[-1] for name in names}
    for number in range(len(names), 0, -1):
        run = run_of(recipe, number)
        if run.fingerprint in known and artifacts.find(root, run) is not None:
            return run
    return run_of(recipe, 0)


def _folder(root: str, dataset: str, recipe: Recipe, classes: Sequence[str]) -> str:
    """The classes count as configuration: a head for other classes is of no use."""
    settings = {name: value for name, value in recipe.config.items() if name != "run"}
    key = fingerprint_of([dataset, recipe.version, settings, list(classes)])
    return storage.join(root, "training", "history", key)


def _names(folder: str) -> list[str]:
    found = storage.list_objects(folder)
    return sorted(item.uri.rsplit("/", 1)[-1].removesuffix(".json") for item in found)

"""Which subsets there are, and which videos belong to which, also those annotated as empty."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable

from tsp_core import artifacts
from tsp_core.artifacts import ArtifactRef
from tsp_core.errors import ConfigError

SUBSETS = "subsets.json"


def videos_by_subset(annotate: ArtifactRef) -> dict[str, list[str]]:
    """Read the annotated videos of each subset, those without any segment included.

    Nothing is known of artifacts that lack the file: their videos with segments tell.

    Args:
        annotate: An artifact of the stage annotate.

    Raises:
        ArtifactError: It is damaged.
    """
    if SUBSETS not in artifacts.read_marker(annotate.uri).files:
        return {}
    found: dict[str, list[str]] = json.loads(artifacts.read_file(annotate, SUBSETS))
    return found


def check_subset(key: str, subset: str, known: Iterable[str]) -> None:
    """Refuse a subset that the annotations do not have.

    Args:
        key: Where the configuration names it: "evaluate.subset".
        subset: Its value there.
        known: The annotated subsets.

    Raises:
        ConfigError: Naming the key, the value, and the subsets there are.
    """
    names = sorted(set(known))
    if subset in names:
        return
    close = difflib.get_close_matches(subset, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"{key}: {subset!r}: the annotations have no such subset; set it to one of "
        f"{', '.join(names) or 'none'}{hint}"
    )

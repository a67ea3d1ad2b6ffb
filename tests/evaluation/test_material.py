"""Which videos localizers are trained and evaluated on."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.localizers.made_up import STRIDE, made_up, sequence
from tests.evaluation.samples import CLASSES, export_of, segments_of, segments_table
from tsp_core.config import EvaluateConfig
from tsp_core.evaluation.material import gather_material


@pytest.mark.parametrize("ignore", [False, True])
def test_videos_with_ambiguous_segments_alone_are_no_negatives(ignore: bool) -> None:
    config = EvaluateConfig(ignore_ambiguous=ignore)
    training, evaluated = made_up(3, seed=0), made_up(3, seed=1)
    rows = [*segments_of("training", training[1]), *segments_of("validation", evaluated[1])]
    blanks = {name: sequence(name, np.zeros((20, 8))) for name in ("of_training", "of_validation")}
    unclear = [
        {**rows[0], "video": f"of_{subset}", "subset": subset, "kind": "ambiguous"}
        | {"label": None, "label_index": -1, "region": -1}
        for subset in ("training", "validation")
    ]
    mixed = {**unclear[0], "video": sorted(training[0])[0]}
    found = gather_material(
        export_of({**training[0], **evaluated[0], **blanks}, clip_seconds=2 * STRIDE),
        segments_table([*rows, *unclear, mixed]),
        classes=CLASSES,
        train_subset="training",
        config=config,
        subsets={"training": ["of_training"], "validation": ["of_validation"]},
    )
    assert set(found.training.sequences) == set(training[0])
    kept = {"of_validation"} if ignore else set()  # the kit counts what does not touch them
    assert set(found.evaluation.sequences) == {*evaluated[0], *kept}
    subsets = ("training",) if ignore else ("validation", "training")
    assert found.notes == tuple(
        f"1 videos of {subset} have ambiguous segments alone and are left out: nothing certain is "
        "known of them."
        for subset in subsets
    )

"""Each half of the videos is detected by what was trained on the other."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.localizer_crossfit import crossfit_map
from tests.evaluation.localizers.made_up import made_up
from tsp_core.config import EvaluateConfig
from tsp_core.evaluation.detection.instances import Instances

CONFIG = EvaluateConfig(protocol="thumos14", detector_epochs=80, detector_width=16)


@pytest.mark.parametrize("share_classes", [True, False])
def test_what_only_one_half_shows_is_not_found(share_classes: bool) -> None:
    sequences, actions = made_up(12, seed=0, num_classes=1)
    names = sorted(sequences)
    labels = [0 if share_classes else names.index(video) % 2 for video in actions.videos]
    relabelled = Instances(
        videos=actions.videos,
        label_indices=np.array(labels),
        t_start=actions.t_start,
        t_end=actions.t_end,
    )
    found = crossfit_map(sequences, relabelled, num_classes=2, config=CONFIG)
    assert found > 0.4 if share_classes else found < 0.05

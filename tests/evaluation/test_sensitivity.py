from __future__ import annotations

import json

import numpy as np
import pytest

from tests.evaluation.detection.oracle import Row, truth
from tests.evaluation.localizers.made_up import STRIDE, made_up, sequence
from tsp_core.evaluation.detection.instances import Instances
from tsp_core.evaluation.localizers.sequences import FeatureSequence, label_videos
from tsp_core.evaluation.sensitivity import measure_sensitivity
from tsp_core.evaluation.separation import (
    cross_validated_auc,
    fisher_direction,
    principal_components,
    silhouette,
)

CLASSES = ("run", "jump")


def test_sensitive_features_score_above_insensitive_ones():
    sensitive = measure_sensitivity(*made_up(6, seed=0, noise=0.2))
    blind = measure_sensitivity(*made_up(6, seed=0, noise=1000.0))
    assert sensitive.region_auc > 0.99
    assert abs(blind.region_auc - 0.5) < 0.15
    assert sensitive.similarity.contrast > 0.2
    assert abs(blind.similarity.contrast) < 0.05
    assert sensitive.silhouette > 0.05 > abs(blind.silhouette)


def test_similarity_by_hand():
    # rows of the action point one way, rows of the background the other: standardised, the
    # cosines are 1 within a stretch and -1 across a boundary
    values = np.array([1, 1, 1, -1, -1, -1], dtype=float)
    found = measure_sensitivity(
        {"a": sequence("a", values[:, None])}, truth(("a", 0, 0, 1.5)), max_lag_seconds=1.0
    )
    assert found.similarity.lags_seconds.tolist() == [0.5, 1.0]
    assert found.similarity.within.tolist() == pytest.approx([1, 1])
    assert found.similarity.across.tolist() == pytest.approx([-1, -1])
    assert found.similarity.contrast == pytest.approx(2)
    assert found.silhouette == pytest.approx(1)
    assert found.region_auc is None  # one video cannot be held out


def test_videos_are_weighed_by_hand():
    # at 0.5 s: 4 pairs within and 1 across in a (weight 4/5), 2 and 1 in b (2/3); none across in c
    sequences = {
        name: sequence(name, np.array(values, dtype=float)[:, None])
        for name, values in {
            "a": [1, 1, 1, -1, -1, -1],  # cosines of 1 within, of -1 across
            "b": [1, -1, 1, -1],  # all of -1
            "c": [1, 1, -1, -1],
        }.items()
    }
    actions = truth(("a", 0, 0, 1.5), ("b", 0, 0, 1))
    found = measure_sensitivity(sequences, actions, max_lag_seconds=0.5)
    # (4/5 - 2/3) / (4/5 + 2/3)
    assert found.similarity.within.tolist() == pytest.approx([1 / 11])
    assert found.similarity.across.tolist() == pytest.approx([-1])
    assert found.similarity.contrast == pytest.approx(12 / 11)


def test_two_actions_are_two_stretches():
    values = np.array([1, 1, -1, -1, 1, 1], dtype=float)
    adjacent = truth(("a", 0, 0, 1), ("a", 1, 1, 2))
    found = measure_sensitivity(
        {"a": sequence("a", values[:, None])}, adjacent, max_lag_seconds=0.5
    )
    # the pair of rows of the two actions, with a cosine of -1, is left out
    assert found.similarity.within.tolist() == pytest.approx([1])
    assert found.similarity.across.tolist() == pytest.approx([-1])


def test_no_video_with_pairs_of_both_kinds():
    values = np.array([1, 1, -1, -1], dtype=float)
    found = measure_sensitivity(
        {"a": sequence("a", values[:, None])}, truth(("a", 0, 0, 2)), max_lag_seconds=0.5
    )
    assert np.isnan(found.similarity.within).all()
    assert np.isnan(found.similarity.across).all()
    assert found.similarity.contrast is None
    assert found.silhouette is None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_differences_between_videos_are_no_contrast(seed: int):
    # videos with one long action are alike throughout, those with many short ones are not: pooled
    # over videos, most pairs within would be of the first and most pairs across of the second
    blind = measure_sensitivity(*_uneven_videos(seed=seed, action_shift=0.0))
    assert blind.similarity.contrast == pytest.approx(0, abs=0.02)
    assert np.abs(blind.similarity.within - blind.similarity.across).max() < 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_contrast_is_found_among_differences_between_videos(seed: int):
    sensitive = measure_sensitivity(*_uneven_videos(seed=seed, action_shift=1.5))
    assert sensitive.similarity.contrast > 0.3
    assert (sensitive.similarity.within > sensitive.similarity.across).all()


def _uneven_videos(
    *, seed: int, action_shift: float
) -> tuple[dict[str, FeatureSequence], Instances]:
    """Draw videos with an offset each; the rows of actions are shifted in all features."""
    draws = np.random.default_rng(seed)
    sequences: dict[str, FeatureSequence] = {}
    rows: list[Row] = []
    times = (np.arange(120) + 0.5) * STRIDE
    for number in range(40):
        name, is_static = f"v{number:02d}", number % 2 == 0
        features = draws.normal(size=32) * (2.0 if is_static else 0.3) + draws.normal(
            size=(len(times), 32)
        )
        spans = [(20, 40)] if is_static else [(start, start + 2) for start in range(2, 56, 4)]
        for start, end in spans:
            features[(times >= start) & (times < end)] += action_shift
            rows.append((name, 0, start, end))
        sequences[name] = sequence(name, features)
    return sequences, truth(*rows)


def test_ambiguous_rows_are_left_out():
    values = np.array([1, 1, 5, -1, -1], dtype=float)
    sequences = {"a": sequence("a", values[:, None])}
    found = measure_sensitivity(
        sequences, truth(("a", 0, 0, 1)), ambiguous=truth(("a", -1, 1, 1.5)), max_lag_seconds=0.5
    )
    assert len(found.map.points) == 4
    assert np.isnan(found.similarity.across).all()  # the rows of the boundary are not next


def test_json_is_plain_and_strict():
    text = json.dumps(measure_sensitivity(*made_up(3, seed=0)).as_json(), allow_nan=False)
    assert json.loads(text)["num_rows"] > 0


def test_held_out_videos_are_scored_by_others():
    # every video has its own direction: within a video it separates, on others it does not
    draws = np.random.default_rng(0)
    sequences, rows = {}, []
    for number in range(8):
        features = 0.1 * draws.normal(size=(40, 8))
        features[:20, number] += 2.0
        sequences[f"v{number}"] = sequence(f"v{number}", features)
        rows.append((f"v{number}", 0, 0, 10))
    labels = label_videos(sequences, truth(*rows))
    assert cross_validated_auc(sequences, labels, num_folds=8) < 0.75
    together = np.concatenate([s.features for s in sequences.values()])
    direction, _ = fisher_direction(together, np.tile(np.arange(40) < 20, 8))
    assert direction.min() > 0


def test_fisher_points_towards_actions_whatever_the_scales():
    draws = np.random.default_rng(0)
    is_action = np.arange(400) < 200
    features = draws.normal(size=(400, 2)) * [1.0, 10.0]
    features[is_action, 0] += 4.0
    direction, midpoint = fisher_direction(features.astype(np.float32), is_action)
    assert direction[0] > 0
    assert abs(direction[1]) < 0.2 * direction[0]
    assert midpoint[0] == pytest.approx(2.0, abs=0.2)


def test_silhouette_by_hand():
    # distances of the first point: 1 to its own group, mean 4.5 to the other
    points = np.array([[0.0], [1.0], [4.0], [5.0]])
    is_action = np.array([True, True, False, False])
    expected = np.mean([(4.5 - 1) / 4.5, (3.5 - 1) / 3.5, (3.5 - 1) / 3.5, (4.5 - 1) / 4.5])
    assert silhouette(points, is_action) == pytest.approx(expected)
    assert silhouette(points, np.ones(4, dtype=bool)) is None
    alone = np.array([True, False, False, False])
    assert silhouette(points[[0, 0, 0, 0]], alone) == 0


def test_components_are_orthogonal_ordered_and_of_fixed_sign():
    draws = np.random.default_rng(0)
    points = draws.normal(size=(100, 5)) * [1, 2, 10, 3, 4]
    projected, shares = principal_components(points)
    assert shares[0] > shares[1] > 0
    assert abs(projected[:, 0] @ projected[:, 1]) < 1e-6
    assert np.corrcoef(projected[:, 0], points[:, 2])[0, 1] > 0.95  # not -0.95
    flat, shares = principal_components(np.ones((3, 1)))
    assert flat.tolist() == [[0, 0]] * 3
    assert shares.tolist() == [0, 0]


def test_refuses_no_videos():
    with pytest.raises(ValueError, match="sequences: no videos"):
        measure_sensitivity({}, truth())

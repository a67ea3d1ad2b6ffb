from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.detection.oracle import truth
from tests.evaluation.localizers.made_up import made_up
from tsp_core.evaluation.localizers.probes import (
    score_probes,
    train_linear_probe,
    train_probes,
)
from tsp_core.evaluation.roc import roc_auc

CLASSES = ("run", "jump")


def probes_and_scores(noise):
    trained = train_probes(*made_up(8, seed=0, noise=noise), num_classes=2)
    return trained, score_probes(trained, *made_up(4, seed=1, noise=noise), classes=CLASSES)


def test_reads_what_is_there():
    _, scores = probes_and_scores(noise=0.1)
    assert scores.action.accuracy == 1
    assert scores.region.balanced_accuracy > 0.99
    assert scores.region_auc > 0.999
    assert scores.as_json()["region_auc"] == scores.region_auc


def test_reads_nothing_out_of_noise():
    _, scores = probes_and_scores(noise=1000.0)
    assert abs(scores.region_auc - 0.5) < 0.15


def test_is_deterministic_and_indifferent_to_scale_and_offset():
    draws = np.random.default_rng(0)
    features = draws.normal(size=(300, 4)).astype(np.float32)
    labels = (features[:, 0] + 0.5 * draws.normal(size=300) > 0).astype(np.int64)
    first = train_linear_probe(features, labels, 2)
    again = train_linear_probe(features, labels, 2)
    assert first.weight.tobytes() == again.weight.tobytes()
    moved = features * 100 + 7
    other = train_linear_probe(moved, labels, 2)
    assert np.allclose(first.logits(features), other.logits(moved), atol=2e-2)


def test_the_solution_is_a_minimum():
    draws = np.random.default_rng(1)
    features = draws.normal(size=(200, 3)).astype(np.float32)
    labels = np.argmax(features + draws.normal(size=(200, 3)), axis=1)
    probe = train_linear_probe(features, labels, 3, l2=0.01)
    x = ((features - probe.mean) / probe.scale).astype(np.float64)
    weight = 1 / np.bincount(labels)[labels] / 3

    def objective(matrix):
        logits = x @ matrix.T + probe.bias
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(200), labels]
        return (weight * losses).sum() + 0.005 * (matrix**2).sum()

    best = objective(probe.weight)
    for row, column in np.ndindex(3, 3):
        for step in (-0.05, 0.05):
            moved = probe.weight.astype(np.float64)
            moved[row, column] += step
            assert objective(moved) > best


def test_a_class_without_rows_is_never_predicted():
    features = np.array([[0.0], [1.0], [0.1], [0.9]], dtype=np.float32)
    probe = train_linear_probe(features, np.array([0, 2, 0, 2]), 3)
    assert probe.logits(features).argmax(axis=1).tolist() == [0, 2, 0, 2]
    assert (probe.logits(features)[:, 1] < -100).all()


def test_rows_are_thinned_out_evenly():
    features = np.linspace(-1, 1, 1001, dtype=np.float32)[:, None]
    probe = train_linear_probe(features, (features[:, 0] > 0).astype(np.int64), 2, max_rows=11)
    assert (probe.logits(features)[[0, -1]].argmax(axis=1) == [0, 1]).all()


def test_without_background_there_is_no_region_probe():
    sequences, _ = made_up(2, seed=0)
    always = truth(*[(name, 0, 0, 1000) for name in sequences])
    probes = train_probes(sequences, always, num_classes=2)
    assert probes.region is None
    assert probes.action is None  # one class only
    scores = score_probes(probes, sequences, always, classes=CLASSES)
    assert (scores.action, scores.region, scores.region_auc) == (None, None, None)


def test_auc_by_hand():
    positive = np.array([True, False, True, False])
    assert roc_auc(np.array([4.0, 3.0, 2.0, 1.0]), positive) == 0.75
    assert roc_auc(np.ones(4), positive) == 0.5
    assert roc_auc(np.array([1.0, 1.0, 2.0, 0.0]), positive) == 0.875
    assert roc_auc(np.ones(2), np.array([True, True])) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_auc_is_the_share_of_pairs_in_order(rows):
    above = [score for score, positive in rows if positive]
    below = [score for score, positive in rows if not positive]
    found = roc_auc(
        np.array([score for score, _ in rows], dtype=float),
        np.array([positive for _, positive in rows]),
    )
    if not above or not below:
        assert found is None
    else:
        wins = [(a > b) + 0.5 * (a == b) for a in above for b in below]
        assert found == pytest.approx(np.mean(wins))


def test_refusals():
    with pytest.raises(ValueError, match=r"labels: 0 rows .* labels from 0 to 1"):
        train_linear_probe(np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int64), 2)
    with pytest.raises(ValueError, match=r"labels: 1 rows with values \[2\]"):
        train_linear_probe(np.zeros((1, 2), dtype=np.float32), np.array([2]), 2)

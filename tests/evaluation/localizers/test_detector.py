from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.evaluation.detection.oracle import truth
from tests.evaluation.localizers.made_up import made_up, sequence
from tsp_core.errors import TrainingError
from tsp_core.evaluation.detection.average_precision import THUMOS14_TIOU, mean_average_precision
from tsp_core.evaluation.detection.instances import detections_table
from tsp_core.evaluation.localizers.detector import DetectorConfig, train_detector
from tsp_core.evaluation.localizers.pyramid import PyramidNetwork

TINY = DetectorConfig(width=8, epochs=2, batch_size=2)


def test_learns_to_localize_on_unseen_videos():
    losses = []
    detector = train_detector(
        *made_up(16, seed=0),
        num_classes=2,
        config=DetectorConfig(width=24, epochs=12, batch_size=4, learning_rate=4e-3),
        progress=lambda epoch, epochs, loss: losses.append((epoch, epochs, loss)),
    )
    sequences, actions = made_up(6, seed=1)
    detections = detector.detect(sequences)
    result = mean_average_precision(actions, detections, tiou_thresholds=THUMOS14_TIOU)
    assert result.mean > 0.85
    assert [row[:2] for row in losses] == [(epoch, 12) for epoch in range(1, 13)]
    assert losses[-1][2] < losses[0][2] / 2
    durations = np.array([sequences[name].duration_seconds for name in detections.videos])
    assert (detections.t_start >= 0).all()
    assert (detections.t_end <= durations).all()


def test_a_channel_that_never_fired_in_training_does_not_drown_the_others():
    def with_channel(data, size):
        sequences, actions = data
        noise = np.random.default_rng(0)
        widened = {
            name: replace(
                item,
                features=np.concatenate(
                    [item.features, noise.random((len(item.features), 1), np.float32) * size],
                    axis=1,
                ),
            )
            for name, item in sequences.items()
        }
        return widened, actions

    config = DetectorConfig(width=16, epochs=10, batch_size=4, learning_rate=4e-3)
    detector = train_detector(*with_channel(made_up(16, seed=0), 0.0), num_classes=2, config=config)
    found = []
    for size in (0.0, 0.01):
        sequences, actions = with_channel(made_up(4, seed=1), size)
        detections = detector.detect(sequences)
        found.append(mean_average_precision(actions, detections, tiou_thresholds=(0.5,)).mean)
    assert found[0] > 0.2
    assert found[1] == pytest.approx(found[0], abs=0.02)


def test_equal_seeds_give_equal_bytes_and_leave_the_global_state_alone():
    data = made_up(4, seed=0)
    outcomes = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed * 7)
        before = torch.random.get_rng_state()
        detector = train_detector(
            *data, num_classes=2, config=DetectorConfig(width=8, epochs=2, batch_size=2, seed=seed)
        )
        assert torch.equal(torch.random.get_rng_state(), before)
        outcomes.append(detections_table(detector.detect(data[0]), localizer="detector"))
    assert outcomes[0].equals(outcomes[1])
    assert not outcomes[0].equals(outcomes[2])


def test_training_in_several_threads_at_once_gives_what_it_gives_alone():
    data = made_up(4, seed=0)
    config = DetectorConfig(width=8, epochs=6, batch_size=2)

    def found(_: int = 0):
        detector = train_detector(*data, num_classes=2, config=config)
        return detections_table(detector.detect(data[0]), localizer="detector")

    alone = found()
    with ThreadPoolExecutor(4) as pool:
        assert all(table.equals(alone) for table in pool.map(found, range(4)))


def test_outputs_do_not_depend_on_what_a_video_is_batched_with():
    torch.manual_seed(0)
    network = PyramidNetwork(4, 3, num_levels=4, width=8, dropout=0.1).eval()
    features = torch.randn(1, 4, 37)
    alone = network(features, torch.ones(1, 37, dtype=torch.bool))
    padded = torch.zeros(2, 4, 61)
    padded[0, :, :37], padded[1] = features, torch.randn(4, 61)
    mask = torch.ones(2, 61, dtype=torch.bool)
    mask[0, 37:] = False
    together = network(padded, mask)
    assert [output.logits.shape[1] for output in alone] == [37, 19, 10, 5]
    for one, two in zip(alone, together, strict=True):
        size = one.logits.shape[1]
        assert two.mask[0].tolist() == [row < size for row in range(two.mask.shape[1])]
        assert torch.allclose(one.logits[0], two.logits[0, :size], atol=1e-5)
        assert torch.allclose(one.distances[0], two.distances[0, :size], atol=1e-5)


def test_is_compact():
    config = DetectorConfig()
    network = PyramidNetwork(512, 200, num_levels=8, width=config.width, dropout=config.dropout)
    assert sum(parameter.numel() for parameter in network.parameters()) < 1_000_000


def test_long_videos_are_trained_on_in_stretches():
    sequences, actions = made_up(2, seed=0)
    config = DetectorConfig(width=8, epochs=2, batch_size=2, max_rows=16)
    detector = train_detector(sequences, actions, num_classes=2, config=config)
    assert set(detector.detect(sequences).videos.tolist()) == set(sequences)


def test_takes_very_short_and_empty_videos():
    sequences, actions = made_up(2, seed=0)
    sequences["one_row"] = sequence("one_row", np.zeros((1, 8)))
    detector = train_detector(sequences, actions, num_classes=2, config=TINY)
    assert len(detector.detect({})) == 0
    alone = detector.detect({"one_row": sequences["one_row"]})
    assert (alone.t_end <= 0.5).all()


def test_detections_are_thinned_out_to_the_limit():
    sequences, actions = made_up(2, seed=0)
    config = DetectorConfig(width=8, epochs=1, max_detections=5, min_score=0.0)
    detections = train_detector(sequences, actions, num_classes=2, config=config).detect(sequences)
    assert len(detections) == 10
    for name in sequences:
        own = detections.scores[detections.videos == name]
        assert (np.diff(own) <= 0).all()


def test_refusals():
    sequences, actions = made_up(2, seed=0)
    with pytest.raises(ValueError, match="actions: none in any of the 2 videos"):
        train_detector(sequences, truth(("elsewhere", 0, 0, 1)), num_classes=2, config=TINY)
    with pytest.raises(ValueError, match=r"labels \[0, 1\]; give labels from 0 to 0"):
        train_detector(sequences, actions, num_classes=1, config=TINY)
    wild = DetectorConfig(width=8, epochs=5, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"the loss is .* lower learning_rate \(1e\+30\)"):
        train_detector(sequences, actions, num_classes=2, config=wild)

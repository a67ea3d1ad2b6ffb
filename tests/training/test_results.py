"""Metrics, the picture, TensorBoard events, and predictions."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from tests.training.tiny import (
    CLIP,
    clips_table,
    global_features,
    make_job,
    make_trainer,
    videos_table,
    write_videos,
)
from tests.video.crashing import crash_on_one
from tsp_core.config import PretrainConfig, RuntimeConfig
from tsp_core.model.encoders import build_encoder
from tsp_core.model.heads import TSPModel
from tsp_core.training.job import MetricRow
from tsp_core.training.metrics import Sums, epoch_values
from tsp_core.training.plots import draw_curves
from tsp_core.training.validate import ClipSamples, open_samples, predict_clips
from tsp_core.video.sandbox import DecodingLimits


def rows_of(names: list[str], epochs: int = 3) -> list[MetricRow]:
    return [
        MetricRow(epoch, 10 * (epoch + 1), phase, name, 0.5 + 0.1 * epoch)
        for epoch in range(epochs)
        for phase in ("train", "valid")
        for name in names
    ]


def test_sums_give_means_over_clips() -> None:
    one = Sums(clips=3, action_clips=1, action_loss=2.0, action_correct=1, region_clips=3,
               region_loss=3.0, region_correct=2)  # fmt: skip
    other = Sums(clips=1, failed=2, action_clips=1, action_loss=1.0, region_clips=1,
                 region_loss=1.0, region_correct=1)  # fmt: skip
    values = epoch_values(one.plus(other), PretrainConfig(alpha_action=2.0, alpha_region=0.5))
    assert values == {
        "loss": 2.0 * 1.5 + 0.5 * 1.0,
        "loss_action": 1.5,
        "loss_region": 1.0,
        "accuracy_action": 0.5,
        "accuracy_region": 0.75,
        "accuracy_mean": 0.625,
        "num_clips": 4,
        "num_failed_clips": 2,
    }


def test_one_head_has_its_own_figures_alone() -> None:
    values = epoch_values(Sums(clips=2, region_clips=2, region_correct=1), PretrainConfig())
    assert "loss_action" not in values
    assert "accuracy_action" not in values
    assert values["accuracy_mean"] == values["accuracy_region"] == 0.5


@pytest.mark.parametrize(
    "names",
    [
        ["loss", "loss_action", "loss_region", "accuracy_mean", "accuracy_action"],
        ["loss", "loss_region", "accuracy_mean", "accuracy_region"],
    ],
)
def test_curves_are_a_picture_that_depends_on_the_rows_alone(names: list[str]) -> None:
    picture = draw_curves(rows_of(names), best_epoch=1)
    assert picture == draw_curves(rows_of(names), best_epoch=1)
    assert picture != draw_curves(rows_of(names, epochs=2), best_epoch=1)
    pixels = matplotlib.image.imread(io.BytesIO(picture))
    assert pixels.shape[:2] == (400, 1000)
    assert pixels.std() > 0.01
    assert b"Software" not in picture
    assert b"matplotlib" not in picture


def test_tensorboard_events_hold_every_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = make_job(tmp_path, tensorboard=True)
    position = make_trainer(job).run()
    events = EventAccumulator(job.events_uri)
    events.Reload()
    for row in position.rows:
        found = {event.step: event.value for event in events.Scalars(f"{row.name}/{row.phase}")}
        assert math.isclose(found[row.epoch + 1], row.value, rel_tol=1e-6)


@pytest.fixture
def samples(tmp_path: Path) -> Iterator[ClipSamples]:
    paths = write_videos(tmp_path)
    with open_samples(
        videos=videos_table(paths),
        clips=clips_table(paths),
        heads="tsp",
        clip=CLIP,
        clips_per_segment=2,
        gvf=global_features(paths),
    ) as opened:
        yield opened


def model_of(heads: str) -> TSPModel:
    torch.manual_seed(0)
    return TSPModel(
        build_encoder("r2plus1d_tiny"),
        encoder_name="r2plus1d_tiny",
        num_classes=2,
        heads=heads,
        use_gvf=True,
    )


def test_predictions_are_one_row_per_clip_whatever_the_batches(samples: ClipSamples) -> None:
    seen: list[tuple[int, int]] = []
    table = predict_clips(
        model_of("tsp"),
        samples,
        device="cpu",
        precision="fp32",
        batch_size=5,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(5, 24), (10, 24), (15, 24), (20, 24), (24, 24)]
    assert table.num_rows == 24  # four videos, three segments, two clips
    assert table["video"].to_pylist() == [f"video{n}" for n in range(4) for _ in range(6)]
    assert table["label_index"].to_pylist()[:6] == [-1, -1, 0, 0, -1, -1]
    assert table["region"].to_pylist()[:6] == [1, 1, 0, 0, 1, 1]
    starts = [0, 1.2 - 8 / 15, 1.2, 2.5 - 8 / 15, 2.5, 4 - 8 / 15]
    assert table["start_seconds"].to_pylist()[:6] == pytest.approx(starts)
    single = predict_clips(
        model_of("tsp"), samples, device="cpu", precision="fp32", batch_size=1, workers=1
    )
    for name in ("action_logits", "region_logits"):
        logits = np.array(table[name].to_pylist())
        assert logits.shape == (24, 2)
        np.testing.assert_allclose(logits, np.array(single[name].to_pylist()), atol=1e-5)


def test_a_clip_that_cannot_be_read_has_no_logits(samples: ClipSamples) -> None:
    Path(samples.index.video_row(2)["uri"]).write_bytes(b"broken")
    table = predict_clips(model_of("tsp"), samples, device="cpu", precision="fp32", batch_size=6)
    assert table.num_rows == 24
    for name in ("action_logits", "region_logits"):
        missing = [row for row, logits in enumerate(table[name].to_pylist()) if logits is None]
        assert missing == list(range(12, 18))


def test_a_video_that_crashes_the_decoder_costs_its_own_clips(
    samples: ClipSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("tsp")
    plain = predict_clips(model, samples, device="cpu", precision="fp32", batch_size=6)
    limited = dataclasses.replace(samples, limits=DecodingLimits.of(RuntimeConfig()))
    apart = predict_clips(model, limited, device="cpu", precision="fp32", batch_size=6)
    assert apart.equals(plain)
    monkeypatch.setattr("tsp_core.video.apart.read_clip", crash_on_one)
    found = predict_clips(model, limited, device="cpu", precision="fp32", batch_size=6)
    for name in ("action_logits", "region_logits"):
        logits, expected = found[name].to_pylist(), plain[name].to_pylist()
        assert logits == [*expected[:12], *[None] * 6, *expected[18:]]


@pytest.mark.parametrize(
    ("heads", "absent"), [("tac", "region_logits"), ("region", "action_logits")]
)
def test_an_absent_head_has_no_logits(samples: ClipSamples, heads: str, absent: str) -> None:
    table = predict_clips(model_of(heads), samples, device="cpu", precision="fp32", batch_size=24)
    assert table[absent].null_count == 24
    present = {"action_logits", "region_logits"} - {absent}
    assert table[present.pop()].null_count == 0


def test_tac_predicts_foreground_alone(tmp_path: Path) -> None:
    paths = write_videos(tmp_path)
    with open_samples(
        videos=videos_table(paths), clips=clips_table(paths), heads="tac", clip=CLIP,
        clips_per_segment=1,
    ) as opened:  # fmt: skip
        assert opened.index.regions[opened.plan.rows].tolist() == [0] * 4

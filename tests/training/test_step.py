"""Optimiser steps against a plain implementation of the published recipe."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import CLASSES, FEATURE_SIZE, make_job, make_trainer
from tsp_core.errors import TrainingError, WeightsError
from tsp_core.model.heads import TSPModel
from tsp_core.training.loader import Batch
from tsp_core.training.loop import Trainer, build_model
from tsp_core.training.samplers import ClipPlan

# Three iterations per epoch, one epoch of warm-up, a milestone after one and a half.
FACTORS = [1e-5, 1e-5 * 2 / 3 + 1 / 3, 1e-5 / 3 + 2 / 3, 1.0, 1.0, 0.01]
MOMENTUM, WEIGHT_DECAY = 0.8, 5e-2
RATES = {"features.stem": 0.0, "features.layer": 1e-3, "fc": 1e-2}


def draw_batch(seed: int, action_labels: list[int]) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    count = len(action_labels)
    actions = torch.tensor(action_labels)
    return Batch(
        clips=torch.randn((count, 3, 8, 16, 16), generator=generator),
        gvf=torch.rand((count, FEATURE_SIZE), generator=generator),
        action_labels=actions,
        region_labels=(actions < 0).long(),
        positions=np.arange(count),
        failed=(),
    )


def plan_of(count: int) -> ClipPlan:
    zeros = np.zeros(count, dtype=np.int64)
    return ClipPlan(rows=zeros, ratios=zeros * 0.5, tops=zeros, lefts=zeros, flips=zeros > 0)


def plain_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood over the clips whose label is not -1, one by one."""
    terms = [
        torch.log(torch.exp(row - row.max()).sum()) + row.max() - row[label]
        for row, label in zip(logits, labels.tolist(), strict=True)
        if label != -1
    ]
    return torch.stack(terms).mean()


class PlainTraining:
    """SGD with momentum and weight decay, written out."""

    def __init__(self, model: TSPModel, heads: str) -> None:
        self.model, self.heads = model.train(), heads
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        self.velocity: dict[str, torch.Tensor] = {}

    def loss(self, batch: Batch) -> torch.Tensor:
        features = self.model.features(batch.clips)
        state = self.model
        if self.heads == "tac":
            logits = features @ state.fc.weight.T + state.fc.bias
            return 0.7 * plain_cross_entropy(logits, batch.action_labels)
        action = features @ state.fc1.weight.T + state.fc1.bias
        joined = torch.cat([features, batch.gvf], dim=1)
        region = joined @ state.fc2.weight.T + state.fc2.bias
        return 0.7 * plain_cross_entropy(action, batch.action_labels) + 1.3 * plain_cross_entropy(
            region, batch.region_labels
        )

    def step(self, batch: Batch, factor: float) -> float:
        loss = self.loss(batch)
        parameters = dict(self.model.named_parameters())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
                change = gradient + WEIGHT_DECAY * value
                velocity = self.velocity.get(name)
                velocity = change if velocity is None else MOMENTUM * velocity + change
                self.velocity[name] = velocity
                rate = next(rate for prefix, rate in RATES.items() if name.startswith(prefix))
                value -= factor * rate * velocity
        return loss.item()


def tiny_trainer(folder: Path, heads: str = "tsp", **settings: object) -> Trainer:
    defaults: dict[str, object] = {
        "heads": heads,
        "alpha_action": 0.7,
        "alpha_region": 1.3,
        "momentum": MOMENTUM,
        "weight_decay": WEIGHT_DECAY,
        "layers_lr": RATES["features.layer"],
        "heads_lr": RATES["fc"],
        "batch_size": 4 if heads == "tsp" else 2,
    }
    job = make_job(folder, gvf=heads != "tac", **{**defaults, **settings})
    return make_trainer(job)


@pytest.mark.parametrize("heads", ["tsp", "tac"])
def test_steps_are_those_of_the_published_recipe(tmp_path: Path, heads: str) -> None:
    trainer = tiny_trainer(tmp_path, heads)
    assert trainer.num_batches == 3
    trainer.model.double().train()  # so that the kernels' rounding does not count
    plain = PlainTraining(build_model(trainer.job).double(), heads)
    stem = copy.deepcopy(trainer.model.features.stem.state_dict())
    labels = [[0, -1, 1, -1], [-1, 1, -1, -1], [0, 0, 1, -1]]
    if heads == "tac":
        labels = [[0, 1, 1, 0]] * 3
    for iteration, factor in enumerate(FACTORS):
        batch = draw_batch(iteration, labels[iteration % 3])
        batch = replace(batch, clips=batch.clips.double())
        sums = trainer.step(batch, plan_of(4))
        expected = plain.step(batch, factor)
        loss = 0.7 * sums.action_loss / sums.action_clips
        loss += 1.3 * sums.region_loss / max(sums.region_clips, 1)
        assert loss == pytest.approx(expected, abs=1e-6)
        for name, value in trainer.model.state_dict().items():
            torch.testing.assert_close(
                value, plain.model.state_dict()[name], atol=1e-6, rtol=0, msg=name
            )
    assert trainer.position.iteration == len(FACTORS)
    after = trainer.model.features.stem.state_dict()
    for name, before in stem.items():  # frozen, but its statistics follow the data
        assert torch.equal(after[name], before) != ("running" in name or "tracked" in name), name


def test_a_batch_without_foreground_trains_the_region_head_alone(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, weight_decay=0.0, warmup_epochs=0.0)
    action, region = (getattr(trainer.model, name).weight for name in ("fc1", "fc2"))
    before = action.detach().clone(), region.detach().clone()
    sums = trainer.step(draw_batch(0, [-1, -1, -1, -1]), plan_of(4))
    assert (sums.action_clips, sums.action_loss) == (0, 0)
    assert torch.equal(action, before[0])
    assert not torch.equal(region, before[1])


def test_frozen_batch_norm_keeps_its_statistics(tmp_path: Path) -> None:
    trainer = make_trainer(make_job(tmp_path, batch_norm="frozen", epochs=1))
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.run()
    changed = {
        name
        for name, value in trainer.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert not {name for name in changed if "running" in name or "tracked" in name}
    assert any(name.startswith("features.layer1") for name in changed)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_stays_close_and_scales_fp16_losses(tmp_path: Path, precision: str) -> None:
    lower = tiny_trainer(tmp_path / "lower", precision=precision, warmup_epochs=0.0)
    full = tiny_trainer(tmp_path / "full", warmup_epochs=0.0)
    assert lower.scaler.is_enabled() == (precision == "fp16")
    batch = draw_batch(0, [0, -1, 1, -1])
    for trainer in (lower, full):
        trainer.model.train()
        trainer.step(batch, plan_of(4))
    weights = [trainer.model.fc2.weight.detach() for trainer in (lower, full)]
    torch.testing.assert_close(weights[0], weights[1], atol=2e-3, rtol=0)
    assert weights[0].dtype == torch.float32


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.model.train()
    batch = draw_batch(0, [0, -1, 1, -1])
    batch.clips[2, 0, 3, 4, 5] = float("nan")
    trainer.model.eval()  # so that the bad clip does not spread over BatchNorm
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    plan = plan_of(4)
    plan.rows[2] = 4
    with pytest.raises(
        TrainingError, match=r"not finite in epoch 1, batch 1 of 3; .* Clips: video1 at 1\.200 s\."
    ):
        trainer.step(batch, plan)
    assert trainer.position.iteration == 0
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())


def test_gradients_that_are_not_finite_stop_before_the_step(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.model.train()
    trainer.model.fc2.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    with pytest.raises(TrainingError, match=r"^gradients are not finite in epoch 1, batch 1 of 3;"):
        trainer.step(draw_batch(0, [0, -1, 1, -1]), plan_of(4))
    assert trainer.position.iteration == 0
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())


def test_with_fp16_the_scaler_leaves_out_a_step_whose_gradients_are_not_finite(
    tmp_path: Path,
) -> None:
    trainer = tiny_trainer(tmp_path, precision="fp16")
    trainer.model.train()
    trainer.model.fc2.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    scale = trainer.scaler.get_scale()
    trainer.step(draw_batch(0, [0, -1, 1, -1]), plan_of(4))
    assert trainer.scaler.get_scale() < scale
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())


def test_weights_that_changed_since_the_plan_are_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path).model_copy(update={"weights_identity": "random:1:r2plus1d_tiny"})
    message = r"encoder\.weights: random:0 is no longer what it was when the run was planned"
    with pytest.raises(WeightsError, match=message):
        build_model(job)


def test_a_validation_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(make_job(tmp_path))
    with torch.no_grad():
        trainer.model.fc2.bias.fill_(float("inf"))
    message = (
        r"the validation loss of epoch 1 is not finite\. Lower the learning rates \(pretrain\.st"
    )
    with pytest.raises(TrainingError, match=message):
        trainer._validate()
    assert trainer.position.best_epoch == -1
    assert trainer.position.rows == []


def test_a_blank_batch_changes_nothing_that_batch_norm_knows(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.model.train()
    before = {name: value.clone() for name, value in trainer.model.named_buffers()}
    empty = draw_batch(0, [])
    trainer.step(empty, plan_of(4))
    for name, value in trainer.model.named_buffers():
        assert torch.equal(value, before[name]), name


def test_classes_give_the_action_head_its_width(tmp_path: Path) -> None:
    assert tiny_trainer(tmp_path).model.fc1.out_features == len(CLASSES)

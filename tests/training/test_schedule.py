from __future__ import annotations

import pytest
import torch

from tsp_core.config import PretrainConfig
from tsp_core.model.encoders import build_encoder
from tsp_core.model.heads import TSPModel
from tsp_core.training.schedule import base_rates, build_optimizer, build_schedule, set_rates


def test_the_paper_s_schedule_at_every_turn() -> None:
    """100 iterations per epoch: warm-up over two epochs, x0.01 at epochs 4 and 6."""
    schedule = build_schedule(PretrainConfig(), 100)
    expected = {
        0: 1e-5,
        1: 1e-5 * (1 - 1 / 200) + 1 / 200,
        100: 1e-5 * 0.5 + 0.5,
        199: 1e-5 * (1 / 200) + 199 / 200,
        200: 1.0,
        399: 1.0,
        400: 0.01,
        599: 0.01,
        600: 0.0001,
        799: 0.0001,
    }
    for iteration, factor in expected.items():
        assert schedule.factor(iteration) == pytest.approx(factor, rel=1e-12), iteration


def test_milestones_may_be_unsorted_fractional_and_inside_the_warm_up() -> None:
    config = PretrainConfig(milestones=(1.5, 0.5), warmup_epochs=1.0, warmup_factor=0.5, gamma=0.1)
    schedule = build_schedule(config, 3)  # warm-up until 3, milestones at 1.5 and 4.5
    factors = [schedule.factor(iteration) for iteration in range(6)]
    warmed = [0.5, 0.5 * 2 / 3 + 1 / 3, 0.5 / 3 + 2 / 3, 1, 1, 1]
    gammas = [1, 1, 0.1, 0.1, 0.1, 0.01]
    assert factors == pytest.approx([w * g for w, g in zip(warmed, gammas, strict=True)])


def test_no_warm_up() -> None:
    assert build_schedule(PretrainConfig(warmup_epochs=0.0), 10).factor(0) == 1.0


def test_rates_grow_with_the_processes_unless_told_not_to() -> None:
    assert base_rates(PretrainConfig(), 4) == {"stem": 0.0, "layers": 4e-4, "heads": 8e-3}
    fixed = base_rates(PretrainConfig(scale_lr=False, stem_lr=1e-5), 4)
    assert fixed == {"stem": 1e-5, "layers": 1e-4, "heads": 2e-3}


@pytest.mark.parametrize("heads", ["tsp", "tac", "region"])
def test_every_parameter_is_in_the_group_of_its_module(heads: str) -> None:
    model = TSPModel(
        build_encoder("r2plus1d_tiny"),
        encoder_name="r2plus1d_tiny",
        num_classes=3,
        heads=heads,
        use_gvf=True,
    )
    optimizer = build_optimizer(model, PretrainConfig(), 1)
    groups = {group["name"]: {id(p) for p in group["params"]} for group in optimizer.param_groups}
    assert list(groups) == ["stem", "layers", "heads"]
    layers = [getattr(model.features, f"layer{number}") for number in (1, 2, 3, 4)]
    expected = {
        "stem": {id(p) for p in model.features.stem.parameters()},
        "layers": {id(p) for layer in layers for p in layer.parameters()},
        "heads": {
            id(p)
            for head in (model.action_head, model.region_head)
            if head
            for p in head.parameters()
        },
    }
    assert groups == expected
    assert {id(p) for p in model.parameters() if not p.requires_grad} == groups["stem"]
    assert all(group["weight_decay"] == 5e-3 for group in optimizer.param_groups)
    assert all(group["momentum"] == 0.9 for group in optimizer.param_groups)


def test_set_rates_sets_each_group_s_own_rate() -> None:
    model = torch.nn.ModuleDict({"fc": torch.nn.Linear(2, 2)})
    optimizer = build_optimizer(model, PretrainConfig(), 2)
    rates = set_rates(optimizer, base_rates(PretrainConfig(), 2), 0.5)
    assert rates == {"stem": 0.0, "layers": 1e-4, "heads": 2e-3}
    assert [group["lr"] for group in optimizer.param_groups] == list(rates.values())

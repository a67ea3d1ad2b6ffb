"""The runs of a study, each an ordinary configuration of the pipeline.

What runs have in common (the same videos, index, global video features, ...) has the same recipe
and so the same artifact: it is made once, by whichever run comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsp_core.config import Config
from tsp_core.config.io import changed_config
from tsp_core.config.study import INITIAL
from tsp_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One run.

    Attributes:
        variant: Name of its variant, or "initial".
        seed: Its seed.
        config: Its configuration; the name tells the run from the others.
    """

    variant: str
    seed: int
    config: Config

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.variant}, seed {self.seed}"


def initial_run(config: Config) -> StudyRun | None:
    """The training of the encoder that every variant starts from, if the study has one."""
    if config.study.initial is None:
        return None
    return _run(config, INITIAL, config.study.initial, seed=config.pretrain.seed)


def variant_runs(config: Config, *, initial_weights: str | None = None) -> tuple[StudyRun, ...]:
    """Every variant with every seed; all variants with one seed before the next.

    Args:
        config: Of the study.
        initial_weights: URI of the checkpoint that the initial run published; None when there is
            no such run.

    Raises:
        ConfigError: There are no variants, or a variant is wrong.
    """
    if not config.study.variants:
        raise ConfigError(
            f"{config.name}: study.variants: there are none; name what is to be compared, as in "
            "`variants: {tac: {pretrain: {heads: tac}}, tsp: {}}`"
        )
    assert (initial_weights is None) == (config.study.initial is None)
    if initial_weights is not None:
        encoder = {"weights": initial_weights, "sha256_prefix": None}
        config = changed_config(config, {"encoder": encoder}, source=config.name).model_copy(
            update={"study": config.study}
        )
    return tuple(
        _run(config, name, changes, seed=seed)
        for seed in config.study.seeds
        for name, changes in config.study.variants.items()
    )


def _run(
    config: Config, name: str, changes: Mapping[str, Mapping[str, Any]], *, seed: int
) -> StudyRun:
    key = "study.initial" if name == INITIAL else f"study.variants.{name}"
    source = f"{config.name}: {key}"
    changed = changed_config(config, changes, source=source)
    seeded = changed_config(
        changed, {"pretrain": {"seed": seed}, "evaluate": {"seed": seed}}, source=source
    )
    named = seeded.model_copy(update={"name": f"{config.name}-{name}-{seed}"[-100:]})
    return StudyRun(variant=name, seed=seed, config=named)

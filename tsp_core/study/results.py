"""Reads what the runs of a study published, and gathers it by variant."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tsp_core import storage
from tsp_core.artifacts import ArtifactRef
from tsp_core.config import Config
from tsp_core.errors import ArtifactError
from tsp_core.pipeline import is_needed
from tsp_core.schemas import read_table
from tsp_core.study.figures import (
    METRICS_VERSION,
    LengthBin,
    figures_of,
    is_of_a_length,
    length_bins,
)
from tsp_core.study.runs import StudyRun
from tsp_core.study.statistics import Difference, Spread, difference, summarise

Artifacts = Mapping[str, ArtifactRef]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What came of one run.

    Attributes:
        variant: Its variant.
        seed: Its seed.
        figures: By key; see `tsp_core.study.figures`.
        metrics: Content of `metrics.json`.
        artifacts: Fingerprint of the artifact of each stage.
        num_steps: Optimiser steps of its training; None without one.
        best_epoch: That was published, from 1; None without a training.
    """

    variant: str
    seed: int
    figures: Mapping[str, float]
    metrics: Mapping[str, Any]
    artifacts: Mapping[str, str]
    num_steps: int | None
    best_epoch: int | None


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """What the runs of one variant say together.

    Attributes:
        name: The variant.
        config: Of one of its runs; the others differ in the seed.
        runs: In the order of the seeds.
        spreads: Mean and spread of each figure; of those by length only where all runs of the study
            have the same bins.
        differences: To the baseline, of the figures that both have; empty for the baseline.
    """

    name: str
    config: Config
    runs: tuple[RunResult, ...]
    spreads: Mapping[str, Spread]
    differences: Mapping[str, Difference]

    @property
    def losses(self) -> str:
        """The losses it is trained with, for people; none where a checkpoint is given."""
        if self.config.export.checkpoint is not None:
            return "none"
        pretrain = self.config.pretrain
        return {"tsp": "action + region", "tac": "action", "region": "region"}[pretrain.heads]

    @property
    def pooling(self) -> str:
        """The global video feature of its region head."""
        config = self.config
        if config.export.checkpoint is not None or not is_needed(config, "gvf"):
            return "none"
        return config.gvf.pooling


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """Everything that a report needs.

    Attributes:
        config: Of the study.
        baseline: Name of the variant that the others are compared with.
        variants: In the order of the configuration.
        initial: Figures of the training of the initial encoder by name; None without one.
        bins: Of the lengths of the actions, common to all runs; None where they differ.
    """

    config: Config
    baseline: str
    variants: tuple[VariantResult, ...]
    initial: Mapping[str, Any] | None
    bins: tuple[LengthBin, ...] | None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """`metrics.json` of one run, for what all have in common."""
        return self.variants[0].runs[0].metrics


def read_run(run: StudyRun, artifacts: Artifacts) -> RunResult:
    """Read what one run published.

    Args:
        run: The run.
        artifacts: Of its stages, by name.

    Raises:
        ArtifactError: Its metrics are of a version that this release cannot read.
    """
    uri = artifacts["evaluate"].file("metrics.json")
    metrics = json.loads(storage.read_bytes(uri))
    if metrics.get("metrics_version") != METRICS_VERSION:
        raise ArtifactError(
            f"{uri}: version {metrics.get('metrics_version')!r} of the metrics is unknown to this "
            f"release, which reads {METRICS_VERSION}; run `tsp evaluate` again"
        )
    training = artifacts.get("pretrain")
    return RunResult(
        variant=run.variant,
        seed=run.seed,
        figures=figures_of(metrics),
        metrics=metrics,
        artifacts={name: artifact.fingerprint for name, artifact in artifacts.items()},
        num_steps=None if training is None else _num_steps(training),
        best_epoch=None if training is None else _training(training)["best_epoch"] + 1,
    )


def read_initial(artifacts: Artifacts) -> dict[str, Any]:
    """Read what the training of the initial encoder came to."""
    training = _training(artifacts["pretrain"])
    best = training["epochs"][training["best_epoch"]]["valid"]
    accuracies = {name: value for name, value in best.items() if name.startswith("accuracy_")}
    return {
        "num_steps": _num_steps(artifacts["pretrain"]),
        "best_epoch": training["best_epoch"] + 1,
        "artifact": artifacts["pretrain"].fingerprint,
        **accuracies,
    }


def gather(
    config: Config,
    runs: Sequence[StudyRun],
    results: Sequence[RunResult],
    *,
    initial: Mapping[str, Any] | None = None,
) -> StudyResult:
    """Gather the results by variant and compare them with the baseline.

    Args:
        config: Of the study.
        runs: All runs.
        results: Of each of them, in the same order.
        initial: From `read_initial`.
    """
    baseline = config.study.compared_with
    of_variant: dict[str, list[tuple[StudyRun, RunResult]]] = {}
    for run, result in zip(runs, results, strict=True):
        of_variant.setdefault(run.variant, []).append((run, result))
    bins = _common_bins(results)
    spreads = {
        name: summarise([_comparable(result.figures, bins) for _, result in members])
        for name, members in of_variant.items()
    }
    variants = tuple(
        VariantResult(
            name=name,
            config=members[0][0].config,
            runs=tuple(result for _, result in members),
            spreads=spreads[name],
            differences=_differences(spreads[name], spreads[baseline]) if name != baseline else {},
        )
        for name, members in of_variant.items()
    )
    return StudyResult(
        config=config, baseline=baseline, variants=variants, initial=initial, bins=bins
    )


def _common_bins(results: Sequence[RunResult]) -> tuple[LengthBin, ...] | None:
    """The bins of the lengths of all runs that have a detector; None where they differ."""
    found = {bins for result in results if (bins := length_bins(result.metrics))}
    return None if len(found) > 1 else next(iter(found), ())


def _comparable(
    figures: Mapping[str, float], bins: tuple[LengthBin, ...] | None
) -> Mapping[str, float]:
    """The figures without those of bins that other runs do not have."""
    if bins is not None:
        return figures
    return {key: value for key, value in figures.items() if not is_of_a_length(key)}


def _differences(
    variant: Mapping[str, Spread], baseline: Mapping[str, Spread]
) -> dict[str, Difference]:
    return {
        key: difference(spread, baseline[key]) for key, spread in variant.items() if key in baseline
    }


def _training(artifact: ArtifactRef) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(storage.read_bytes(artifact.file("training.json")))
    return found


def _num_steps(artifact: ArtifactRef) -> int:
    table = read_table(artifact.file("metrics.parquet"), "metrics", columns=["iteration"])
    return int(table["iteration"].to_numpy().max())

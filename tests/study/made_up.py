"""A study whose runs never ran: configurations, and metrics with numbers to be computed with."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tsp_core.config import Config
from tsp_core.config.io import parse_config
from tsp_core.schemas import METRICS, table_from_rows
from tsp_core.study.figures import figures_of
from tsp_core.study.results import RunResult, StudyResult, gather
from tsp_core.study.runs import variant_runs

VARIANTS = {"tac": {"pretrain": {"heads": "tac"}}, "tsp": {"gvf": {"pooling": "avg"}}}


def config(root: Path | str = "root", **study: Any) -> Config:
    """A configuration with a study of two variants and two seeds."""
    values = {
        "name": "made_up",
        "root": str(root),
        "encoder": {"name": "r2plus1d_tiny", "weights": "random:0"},
        "study": {"variants": VARIANTS, "seeds": [0, 1], **study},
    }
    return parse_config(values, source="test")


def metrics(mean_ap: float, region_auc: float, *, has_region_head: bool = True) -> dict[str, Any]:
    """What the evaluate stage writes, as far as a study reads it."""
    head = {"balanced_accuracy": 0.5, "auc": 0.6}
    return {
        "metrics_version": 2,
        "subset": "validation",
        "heads": {"action": head, **({"region": head} if has_region_head else {})},
        "settings": {
            "protocol": "thumos14",
            "training": {"videos_used": 4},
            "evaluation": {"videos": 2, "actions": 8},
            "detector": {"epochs": 20},
        },
        "probes": {
            "action": {"balanced_accuracy": 0.4},
            "region": None,
            "region_auc": region_auc,
        },
        "localizers": {
            "detector": {
                "map": {
                    "activitynet": {"average_map": 0.0, "map_by_tiou": {"0.50": 0.0}},
                    "thumos14": {
                        "average_map": mean_ap,
                        "map_by_tiou": {"0.30": mean_ap + 0.1, "0.70": mean_ap - 0.1},
                    },
                },
                "proposals": {"area": 0.7, "average_recall": {"1": 0.2, "10": 0.5}},
                "by_length": {
                    "quantiles": [
                        {
                            "label": "Q1",
                            "range": "0-2 s",
                            "num_instances": 4,
                            "average_map": mean_ap,
                            "recall": None,
                        },
                        {
                            "label": "Q2",
                            "range": "over 2 s",
                            "num_instances": 4,
                            "average_map": mean_ap,
                            "recall": 0.5,
                        },
                    ]
                },
            },
            "heads": {"map": {"thumos14": {"average_map": 0.1}}},
        },
        "sensitivity": None,
    }


def published_files(stage: str) -> dict[str, bytes]:
    """What a study reads of the files that a stage publishes."""
    if stage == "evaluate":
        return {"metrics.json": json.dumps(metrics(0.3, 0.8)).encode()}
    if stage != "pretrain":
        return {}
    row = {"epoch": 0, "iteration": 12, "phase": "valid", "name": "accuracy_action", "value": 0.5}
    buffer = io.BytesIO()
    pq.write_table(table_from_rows([row], METRICS), buffer)
    training = {"best_epoch": 0, "epochs": [{"epoch": 0, "valid": {"accuracy_action": 0.5}}]}
    return {
        "training.json": json.dumps(training).encode(),
        "metrics.parquet": buffer.getvalue(),
        "best.pth": b"PK weights",
    }


def result(values: Mapping[str, Sequence[tuple[float, float]]]) -> StudyResult:
    """A study with these pairs of mAP and region AUC by variant, one per seed."""
    study = config()
    runs = variant_runs(study)
    results = []
    for run in runs:
        mean_ap, region_auc = values[run.variant][run.seed]
        found = metrics(mean_ap, region_auc, has_region_head=run.variant != "tac")
        results.append(
            RunResult(
                variant=run.variant,
                seed=run.seed,
                figures=figures_of(found),
                metrics=found,
                artifacts={"pretrain": f"p{run.seed}", "evaluate": f"e{run.seed}"},
                num_steps=100,
                best_epoch=2,
            )
        )
    return gather(study, runs, results)

"""Tables, files and report of a study, on numbers computed by hand."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest

from tests.study.made_up import config, metrics, result
from tsp_core.config import PretrainConfig
from tsp_core.evaluation.report import render_html, render_markdown
from tsp_core.study import files
from tsp_core.study.figures import (
    MAIN,
    figures_of,
    length_bins,
    length_figures,
    recall_figures,
    threshold_figures,
)
from tsp_core.study.report import study_report
from tsp_core.study.results import VariantResult, gather
from tsp_core.study.runs import variant_runs
from tsp_core.study.statistics import Spread

VALUES = {"tac": [(0.30, 0.80), (0.34, 0.82)], "tsp": [(0.40, 0.81), (0.42, 0.83)]}


def test_a_study_whose_exports_cannot_be_read_is_reported_all_the_same() -> None:
    found = result(VALUES)
    bare = {"protocol": "thumos14", "localizers": [], "detector": None}
    first, *others = found.variants
    run = replace(first.runs[0], metrics={**found.metrics, "settings": bare})
    first = replace(first, runs=(run, *first.runs[1:]))
    without = replace(found, variants=(first, *others))
    text = render_markdown(study_report(without))
    assert "How it was made" in text
    assert "Figures from" not in text


def test_a_step_of_several_machines_is_of_all_their_clips() -> None:
    pretrain = PretrainConfig(nodes=2, processes=4, batch_size=32)
    assert pretrain.clips_per_step == 256


def test_figures_are_those_of_the_protocol_and_absent_ones_are_left_out() -> None:
    found = figures_of(metrics(0.3, 0.8, has_region_head=False))
    assert (found["map"], found["map@0.30"], found["region_auc"]) == pytest.approx((0.3, 0.4, 0.8))
    assert found["map_heads"] == 0.1
    assert "map@0.50" not in found
    assert not {"recall/Q1", "head_region", "map_probes", "silhouette", "probe_region"} & set(found)
    assert [figure.title for figure in threshold_figures(found)] == ["tIoU 0.30", "tIoU 0.70"]
    assert [item.key for item in recall_figures(found)] == ["ar@1", "ar@10", "ar_area"]
    lengths = length_figures(length_bins(metrics(0.3, 0.8)), "map")
    assert [figure.title for figure in lengths] == ["0-2 s (4)", "over 2 s (4)"]


def test_a_run_without_localizers_has_the_figures_that_it_has() -> None:
    bare = {"metrics_version": 2, "settings": {"protocol": "activitynet"}, "heads": {}}
    assert figures_of({**bare, "probes": None, "localizers": {}, "sensitivity": None}) == {}


def test_the_table_shows_mean_and_deviation_in_per_cent() -> None:
    table = files.table_markdown(result(VALUES))
    tac, tsp = table.splitlines()[2:]
    # deviations: sqrt(2) / 100 of 80 and 82; 2 * sqrt(2) / 100 of 30 and 34
    assert tac.startswith("| tac | action | none | 32.0 ± 2.8 | 81.0 ± 1.4 |")
    assert tsp.startswith("| tsp | action + region | avg | 41.0 ± 1.4 | 82.0 ± 1.4 |")
    assert "Region accuracy" not in table  # no run has it


def test_csv_says_what_differs_clearly() -> None:
    rows = list(csv.DictReader(files.table_csv(result(VALUES)).splitlines()))
    found = {(row["variant"], row["figure"]): row for row in rows}
    of_map = found["tsp", "map"]
    assert float(of_map["difference"]) == pytest.approx(0.09)
    assert of_map["is_clear"] == "true"  # 0.09 > 0.0283 + 0.0141
    of_auc = found["tsp", "region_auc"]
    assert float(of_auc["difference"]) == pytest.approx(0.01)
    assert of_auc["is_clear"] == "false"  # 0.01 < 0.0141 + 0.0141
    assert found["tac", "map"]["difference"] == found["tac", "map"]["is_clear"] == ""
    assert float(found["tac", "map"]["std"]) == pytest.approx(0.0282843)
    assert ("tac", "head_region") not in found


def test_runs_and_json_hold_every_run() -> None:
    study = result(VALUES)
    rows = list(csv.DictReader(files.runs_csv(study).splitlines()))
    maps = {(row["variant"], row["seed"]): row["value"] for row in rows if row["figure"] == "map"}
    assert maps == {("tac", "0"): "0.3", ("tac", "1"): "0.34", ("tsp", "0"): "0.4"} | {
        ("tsp", "1"): "0.42"
    }
    values = json.loads(files.results_json(study))
    assert (values["baseline"], values["seeds"]) == ("tac", [0, 1])
    assert [run["seed"] for run in values["variants"]["tsp"]["runs"]] == [0, 1]
    assert values["variants"]["tsp"]["differences"]["map"]["is_clear"] is True
    assert values["variants"]["tac"]["differences"] == {}


def test_the_report_shows_every_table_and_says_how_it_was_made() -> None:
    report = study_report(result(VALUES))
    page, text = render_html(report), render_markdown(report)
    for heading in ("Comparison", "Detection", "By length of the action", "How it was made"):
        assert f"<h2>{heading}</h2>" in page
    assert "41.0 ± 1.4" in page
    assert "+9.0 (beyond both deviations)" in text
    assert "+1.0 (within the spread)" in text
    assert "All variants start from weights drawn at random (seed 0)." in text
    assert re.search(r"\| tac \| action \| none \| 8 \| 100 \| 3,200 \|", text)
    assert {chart.file for chart in report.charts} >= {"study_map.svg", "study_length.svg"}
    for chart in report.charts:
        assert f"]({chart.file})" in text
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)


def test_bins_of_lengths_that_differ_between_runs_are_not_compared() -> None:
    same = result(VALUES)
    assert same.bins == length_bins(metrics(0.3, 0.8))
    runs = [run for variant in same.variants for run in variant.runs]
    other = metrics(0.3, 0.8)
    for bin, bounds in zip(
        other["localizers"]["detector"]["by_length"]["quantiles"],
        ("0-9 s", "over 9 s"),
        strict=True,
    ):
        bin["range"] = bounds
    study = config()
    found = gather(study, variant_runs(study), [*runs[:-1], replace(runs[-1], metrics=other)])
    assert found.bins is None
    text = render_markdown(study_report(found))
    assert "actions of different lengths" in text
    assert "mAP by length" not in text
    assert "map/Q1" not in files.table_csv(found)
    assert "map/Q1" in files.runs_csv(found)
    assert "map/Q1" in files.table_csv(same)


def test_bins_are_those_of_the_runs_that_have_a_detector() -> None:
    same = result(VALUES)
    runs = [run for variant in same.variants for run in variant.runs]
    without = replace(runs[0], metrics={**runs[0].metrics, "localizers": {}}, figures={})
    study = config()
    found = gather(study, variant_runs(study), [without, *runs[1:]])
    assert found.bins == same.bins


def test_equal_results_give_equal_files() -> None:
    first, second = result(VALUES), result(VALUES)
    assert render_html(study_report(first)) == render_html(study_report(second))
    assert files.results_json(first) == files.results_json(second)


def test_one_seed_is_shown_without_a_deviation() -> None:
    assert files.format_spread(Spread(mean=0.5, deviation=None, count=1), MAIN[0]) == "50.0"
    assert files.format_spread(None, MAIN[0]) == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("changes", "losses", "pooling"),
    [
        ({"pretrain": {"heads": "tac"}}, "action", "none"),
        ({"gvf": {"pooling": "avg"}}, "action + region", "avg"),
        ({"export": {"checkpoint": "random:0"}}, "none", "none"),
    ],
)
def test_a_variant_says_what_it_was_trained_with(
    changes: dict[str, dict[str, str]], losses: str, pooling: str
) -> None:
    study = config(variants={"one": changes}, seeds=[0])
    (run,) = variant_runs(study)
    variant = VariantResult(name="one", config=run.config, runs=(), spreads={}, differences={})
    assert (variant.losses, variant.pooling) == (losses, pooling)

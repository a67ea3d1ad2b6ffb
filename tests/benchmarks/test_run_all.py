"""The table of all benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import measure, run_all


def test_rows_of_all_scripts_come_into_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {
        "model_cpu": [measure.row("a | b", 2.5, unit="clips/s", baseline=0.5, ratio=5.0)],
        "gpu": [],
        "orchestration": None,
    }
    monkeypatch.setattr(run_all, "_rows", lambda name, quick: rows[name] if quick else None)
    arguments = ["run_all", "--quick", "--out", str(tmp_path), "--only", *rows]
    monkeypatch.setattr("sys.argv", arguments)
    assert run_all.main() == 1
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["results"] == {"model_cpu": rows["model_cpu"], "gpu": []}
    assert content["failed"] == ["orchestration"]
    assert {"processor", "cores", "torch", "python"} <= content["machine"].keys()
    table = (tmp_path / "results.md").read_text()
    assert "| a / b | 2.5 | 0.5 | 5.0x | clips/s |  |  |" in table
    assert "Skipped: not possible on this machine." in table
    assert "Failed: orchestration" in table
    assert "failed: orchestration" in capsys.readouterr().err


def test_a_script_that_fails_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_all._rows("not_a_benchmark", True) is None


def test_a_gpu_benchmark_without_a_gpu_says_so() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert run_all._rows("gpu", True) == []

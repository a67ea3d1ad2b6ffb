"""The example notebook runs from top to bottom."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.servers import REPOSITORY

NOTEBOOK = REPOSITORY / "examples" / "features_of_one_video.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the packages that run notebooks
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel shows pictures in its own way
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kernel = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=kernel).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    (rows, size), _times = ast.literal_eval(outputs[1]["data"]["text/plain"].replace("array(", "("))
    assert rows > 3
    assert size == 128
    assert "image/png" in outputs[2]["data"]


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert str(os.environ.get("HOME")) not in NOTEBOOK.read_text()

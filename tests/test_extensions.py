"""Encoders and formats from outside, as the examples add them; in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.features.clips import video
from tests.servers import REPOSITORY
from tsp_core import extensions
from tsp_core.config.io import load_config
from tsp_core.errors import ConfigError, WeightsError
from tsp_core.model.encoders import encoder_spec

EXAMPLES = REPOSITORY / "examples" / "extensions"
CHARADES = "id,scene,actions,length\na,Kitchen,c092 1.5 2.5;c147 0.0 1.2,3.0\nb,Hall,,3.0\n"
METADATA = "filename,video-duration,fps,video-frames\na.mp4,3.0,30,90\nb.mp4,3.0,30,90\n"
CONFIG = """
root: out
extensions: [{examples}/r3d_10.py, {examples}/npz.py, {examples}/charades.py]
encoder: {{name: r3d_10, weights: "random:0"}}
annotate: {{format: charades}}
export: {{formats: [npz]}}
"""
EXPORT = """
root: out
extensions: [{examples}/npz.py]
clip: {{length: 8, resize_height: 18, resize_width: 18, crop_size: 16}}
encoder: {{name: r2plus1d_tiny}}
gvf: {{pooling: none}}
ingest: {{videos: videos}}
annotate: {{annotations: rows.csv, format: csv}}
export: {{formats: [npz, h5], checkpoint: "random:0"}}
"""


def run(code: str, folder: Path, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tsp(arguments: str) -> str:
    """Code that runs `tsp ARGUMENTS`."""
    return f"import sys; sys.argv = 'tsp {arguments}'.split(); import flows.cli as c; c.main()"


def test_features_by_an_encoder_and_in_a_format_of_ones_own(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4")
    options = "--encoder r3d_10 --checkpoint random:0 --format npz --out features --quiet"
    added = f"--extension {EXAMPLES}/r3d_10.py --extension {EXAMPLES}/npz.py"
    run(tsp(f"features a.mp4 {options} {added}"), tmp_path)
    with np.load(tmp_path / "features" / "a.npz") as found:
        assert found["features"].shape == (len(found["t_center"]), 512)
        assert found["t_center"][0] == pytest.approx(8 / 15)


def test_weights_of_an_encoder_of_ones_own_are_known_by_the_variable_alone(tmp_path: Path) -> None:
    made = (
        "import torch; from tsp_core.model.encoders import build_encoder\n"
        "torch.save(build_encoder('r3d_10').state_dict(), 'own.pth')"
    )
    found = "from tsp_core.model.weights import open_encoder\nprint(open_encoder('own.pth').name)"
    variable = {"TSP_EXTENSIONS": f"{EXAMPLES}/r3d_10.py"}
    run(made, tmp_path, **variable)
    assert run(found, tmp_path, **variable).strip() == "r3d_10"


def test_the_pipeline_exports_in_a_format_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    video(tmp_path / "videos" / "a.mp4")
    (tmp_path / "rows.csv").write_text(
        "video,label,t-start,t-end,subset\na,jump,0.1,0.9,training\n"
    )
    (tmp_path / "config.yaml").write_text(EXPORT.format(examples=EXAMPLES))
    code = (
        "from tsp_core import pipeline\n"
        "from tsp_core.config.io import load_config\n"
        "reports = pipeline.run_all(load_config('config.yaml'), through='export')\n"
        "print(reports['export'].artifact.file('npz/a.npz'))\n"
    )
    with np.load(run(code, tmp_path).strip()) as found:
        assert found["features"].shape == (len(found["t_center"]), 128)


def test_segments_of_annotations_in_a_format_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "charades.csv").write_text(CHARADES)
    (tmp_path / "videos.csv").write_text(METADATA)
    options = "--format charades --videos videos.csv --out rows.csv --min-background-clips 0.1"
    run(tsp(f"segments charades.csv {options} --extension {EXAMPLES}/charades.py"), tmp_path)
    rows = (tmp_path / "rows.csv").read_text()
    assert rows.count("c092") == 1
    assert rows.count("No action") == 2  # between the two actions, and after them


def test_a_configuration_names_extensions_for_all_its_processes(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(examples=EXAMPLES))
    code = (
        "import pickle, subprocess, sys\n"
        "from tsp_core.config.io import load_config\n"
        "config = load_config('config.yaml')\n"
        "open('config.pickle', 'wb').write(pickle.dumps(config))\n"
        "child = 'from tsp_core.model.encoders import feature_size as f; print(f(\"r3d_10\"))'\n"
        "print(subprocess.run([sys.executable, '-c', child], capture_output=True).stdout)\n"
    )
    assert "512" in run(code, tmp_path)
    elsewhere = (
        "import pickle; config = pickle.load(open('config.pickle', 'rb'))\n"
        "from tsp_core.annotations.registry import find_format; find_format('charades')\n"
        "print(type(config).model_validate_json(config.model_dump_json()) == config)\n"
    )
    assert run(elsewhere, tmp_path).strip() == "True"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extensions: [absent.py]", r"absent\.py': no such file"),
        ("extensions: [no.such.module]", r"'no\.such\.module' cannot be imported \(ModuleNotFound"),
        ("extensions: [bad.py]", r"bad\.py' cannot be imported \(ZeroDivisionError"),
        ("encoder: {name: r2plus1d_43}", r"no encoder 'r2plus1d_43'; did you mean 'r2plus1d_34'"),
        ("annotate: {format: coco}", "no annotation format 'coco'; known are activitynet, thumos"),
        ("export: {formats: [np]}", "no feature format 'np'; did you mean 'npy'"),
        ("extensions: 3", "extensions: 3: "),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.py").write_text("1 / 0")
    (tmp_path / "config.yaml").write_text(f"root: out\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(str(tmp_path / "config.yaml"))


def test_names_are_taken_once() -> None:
    names = extensions.Names("thing", ["own"])
    names.add("new", "mine")
    names.add("new", "mine")  # a module that is imported again
    assert list(names) == ["own", "new"]
    with pytest.raises(ConfigError, match="the thing 'new' is mine's; rename yours"):
        names.add("new", "theirs")
    with pytest.raises(ConfigError, match="the thing 'own' is the project's; rename yours"):
        names.add("own", "theirs")


def test_an_unknown_encoder_is_refused_where_it_is_built() -> None:
    with pytest.raises(WeightsError, match="encoder: there is no encoder 'r3d_81'; did you mean"):
        encoder_spec("r3d_81")

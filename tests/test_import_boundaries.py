"""Imports point down only: flows, tasks, pipeline, stages, then the library's layers."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tsp_core.config import STAGE_NAMES

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("flows", "tasks", "tsp_core")

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"flows"}),
    frozenset({"tasks"}),
    frozenset({"tsp_core.study"}),
    frozenset(
        {
            "tsp_core.catalogue",
            "tsp_core.pipeline",
            "tsp_core.runs",
            "tsp_core.starter",
            "tsp_core.status",
            "tsp_core.prune",
            "tsp_core.underway",
        }
    ),
    frozenset({"tsp_core.stages"}),
    frozenset({"tsp_core.evaluation"}),
    frozenset({"tsp_core.training", "tsp_core.features"}),
    frozenset({"tsp_core.video", "tsp_core.model", "tsp_core.annotations", "tsp_core.demo"}),
    frozenset(
        {
            "tsp_core.errors",
            "tsp_core.extensions",
            "tsp_core.config",
            "tsp_core.schemas",
            "tsp_core.storage",
            "tsp_core.artifacts",
            "tsp_core.credentials",
            "tsp_core.draws",
            "tsp_core.isolation",
            "tsp_core.tether",
        }
    ),
)
"""From the top down; what stands together may import each other."""


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every imported module of a file, wherever it stands, with its line."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the full name"
            assert node.module is not None
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def layer(module: str) -> int | None:
    """Position of a module's layer from the top; None for `tsp_core` itself and other projects."""
    for position, members in enumerate(LAYERS):
        if any(module == member or module.startswith(f"{member}.") for member in members):
            return position
    return None


def violations(module: str, path: Path) -> Iterator[str]:
    own = layer(module)
    for target, line in imports(path):
        where = f"{path.relative_to(REPOSITORY)}:{line}: {module} imports {target}"
        if module.startswith("tsp_core") and target.split(".")[0] == "prefect":
            yield f"{where}: no Prefect inside the library"
        found = layer(target)
        if own is None or found is None:
            continue
        if found < own:
            yield f"{where}: upwards"
        elif stage_of(module) and stage_of(target) not in (None, stage_of(module)):
            yield f"{where}: stages do not import each other"


def stage_of(module: str) -> str | None:
    """The stage that a module is; what several stages share (`stages.base`) is none."""
    parts = module.split(".")
    if parts[:2] != ["tsp_core", "stages"] or len(parts) < 3:
        return None
    return parts[2] if parts[2] in STAGE_NAMES else None


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: str(value))
def test_imports_point_down(module: str, path: Path) -> None:
    assert not list(violations(module, path))


def test_every_module_has_a_layer() -> None:
    homeless = [name for name, _ in modules() if layer(name) is None]
    assert homeless == ["tsp_core"]


@pytest.mark.parametrize(
    ("module", "code", "reason"),
    [
        ("tsp_core.video.probe", "import prefect", "no Prefect"),
        ("tsp_core.video.probe", "from tsp_core.stages.ingest import plan", "upwards"),
        ("tsp_core.video.probe", "def f():\n    from tsp_core import pipeline", "upwards"),
        ("tsp_core.stages.gvf", "from tsp_core.stages import ingest", "do not import each other"),
        ("tsp_core.features.rows", "from tsp_core.evaluation import heads", "upwards"),
        ("tasks.stages", "import flows.cli", "upwards"),
    ],
)
def test_the_check_finds_wrong_arrows(
    module: str, code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "module.py"
    path.write_text(code)
    monkeypatch.setitem(globals(), "REPOSITORY", tmp_path)
    found = list(violations(module, path))
    assert len(found) == 1
    assert reason in found[0]


def test_the_command_line_starts_without_heavy_modules() -> None:
    heavy = [
        "torch",
        "torchvision",
        "prefect",
        "pyarrow",
        "av",
        "matplotlib",
        "numpy",
        "numba",
        "llvmlite",
        "h5py",
    ]
    code = (
        "import sys, flows.cli; from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(flows.cli.app, ['--help']).exit_code == 0\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "tsp_core.config",
        "tsp_core.demo",
        "tsp_core.model.encoders",
        "tsp_core.model.identity",
        "tsp_core.model.published",
        "tsp_core.pipeline",
        "tsp_core.stages.evaluate",
        "tsp_core.status",
    ],
)
def test_planning_imports_neither_torch_nor_matplotlib(module: str) -> None:
    code = f"import sys, {module}; print({{'torch', 'matplotlib'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"

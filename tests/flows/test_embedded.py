"""The embedded server of a run: where it cannot have its database, one line says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import REPOSITORY


def below_a_file(folder: Path) -> str:
    (folder / "file").touch()
    return str(folder / "file" / "home")


def with_a_folder_as_its_database(folder: Path) -> str:
    (folder / "home" / "prefect.db").mkdir(parents=True)
    return str(folder / "home")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (below_a_file, r"tsp: PREFECT_HOME {home}: cannot write there (Not a directory); "),
        (
            with_a_folder_as_its_database,
            r"tsp: {home}/prefect.db: cannot write there (Is a directory); ",
        ),
    ],
)
def test_a_home_that_cannot_be_written_to_is_one_clear_line(
    tmp_path: Path, make: Callable[[Path], str], message: str
) -> None:
    (tmp_path / "config.yaml").write_text("name: cooking\nroot: store\n")
    home = make(tmp_path)
    inherited = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    ended = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "run", "config.yaml"],
        cwd=tmp_path,
        env={**inherited, "PREFECT_HOME": home, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(message.format(home=home))
    assert line.endswith(
        "set PREFECT_HOME to a folder of your own, or PREFECT_API_URL to the address of a server"
    )

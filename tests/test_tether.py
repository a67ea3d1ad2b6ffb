"""A process that is tied to its parent does not outlive it, whenever the parent dies."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tsp_core.tether import tied

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux only")


def parent_of(child: str) -> str:
    """A program that starts a tied child, tells its id, and waits."""
    return textwrap.dedent(f"""
        import os, subprocess, sys, time
        from tsp_core.tether import tied
        child = subprocess.Popen([sys.executable, "-c", {child!r}], env=tied(os.environ))
        print(child.pid, flush=True)
        time.sleep(60)
    """)


def ends(pid: int) -> bool:
    for _ in range(300):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1]
        except FileNotFoundError:
            return True
        if state[0] == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("moment", ["while it starts up", "while it works"])
def test_a_child_ends_with_its_parent(tmp_path: Path, moment: str) -> None:
    go, tied_now = tmp_path / "go", tmp_path / "tied"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    tell = f"open({str(tied_now)!r}, 'w').close(); import time; time.sleep(60)"
    code = f"{wait}from tsp_core.tether import die_with_parent\ndie_with_parent()\n{tell}"
    parent = subprocess.Popen([sys.executable, "-c", parent_of(code)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    if moment == "while it works":
        go.touch()
        while not tied_now.exists():
            time.sleep(0.02)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    go.touch()
    assert ends(child)
    assert tied_now.exists() == (moment == "while it works")


def test_children_are_tied_to_those_who_started_them() -> None:
    grandchild = "from tsp_core.tether import die_with_parent; die_with_parent(); print('alive')"
    child = (
        "import subprocess, sys; from tsp_core.tether import die_with_parent; die_with_parent(); "
        f"subprocess.run([sys.executable, '-c', {grandchild!r}], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", child], env=tied(os.environ), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr

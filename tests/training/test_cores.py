"""How many cores a process may use: what it may run on, its container's quota, TSP_CORES."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tsp_core.config import PretrainConfig
from tsp_core.errors import ConfigError
from tsp_core.training import cores
from tsp_core.training.cores import available_cores, share_of_cores


@pytest.fixture(autouse=True)
def _sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv(cores.CORES, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def kernel(root: Path, groups: str, **quotas: str) -> Path:
    """The kernel's files: the group of the process, and `cpu.max` of groups by their folder."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for folder, text in quotas.items():
        place = root / "sys/fs/cgroup" / folder.replace("__", "/").strip("/")
        place.mkdir(parents=True, exist_ok=True)
        (place / "cpu.max").write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "quotas", "expected"),
    [
        ("0::/\n", {}, 16),
        ("0::/\n", {"__": "max 100000\n"}, 16),
        ("0::/\n", {"__": "400000 100000\n"}, 4),
        ("0::/\n", {"__": "250000 100000\n"}, 3),  # half a core would be left idle
        ("0::/\n", {"__": "50000 100000\n"}, 1),
        ("0::/\n", {"__": "6400000 100000\n"}, 16),
        ("0::/slice/unit\n", {"slice": "300000 100000\n", "slice__unit": "max 100000\n"}, 3),
        ("0::/docker/4f1d\n", {"__": "200000 100000\n"}, 2),  # its own folder is not visible
        ("9:name=systemd:/\n1:cpu:/\n0::/\n", {"__": "200000 100000\n"}, 2),
        ("1:cpu:/\n", {"__": "200000 100000\n"}, 16),  # version 1 alone
    ],
)
def test_quotas_of_containers_count(
    groups: str, quotas: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert available_cores(kernel(tmp_path, groups, **quotas)) == expected


def test_without_the_kernel_s_files_all_cores_count(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 16


@pytest.mark.parametrize(
    ("given", "expected"),
    [("8", 8), ("2.5", 3), ("500m", 1), ("7500m", 8), ("32", 16), ("", 16), ("0", 1)],
)
def test_what_is_meant_for_the_process_counts(
    given: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSP_CORES", given)
    assert available_cores(tmp_path) == expected


def test_the_least_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSP_CORES", "8")
    assert available_cores(kernel(tmp_path, "0::/\n", __="400000 100000\n")) == 4


@pytest.mark.parametrize("given", ["many", "-1", "8Gi", "1e3", "8 "])
def test_no_number_of_cores_is_an_error(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TSP_CORES", given)
    with pytest.raises(ConfigError, match=f"TSP_CORES: '{given}' is not a number of cores; write"):
        available_cores(tmp_path)


def test_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    assert share_of_cores(PretrainConfig(), "cpu") == (8, 8)
    assert share_of_cores(PretrainConfig(processes=8), "cpu") == (1, 0)
    assert share_of_cores(PretrainConfig(processes=2), "cuda") == (4, 4)
    assert share_of_cores(PretrainConfig(workers=0), "cuda") == (8, 0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert share_of_cores(PretrainConfig(), "cpu") == (2, 2)


def test_training_follows_the_cores_that_are_meant_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSP_CORES", "1")
    assert share_of_cores(PretrainConfig(), "cpu") == (1, 0)

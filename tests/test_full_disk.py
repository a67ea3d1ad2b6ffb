"""A disk that is full: the cause is told at once, and nothing is half-there."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import report_error
from tests.stages.dataset import Dataset
from tests.stages.running import contents, run
from tsp_core import storage
from tsp_core.errors import StorageError
from tsp_core.stages import gvf

MEGABYTES = 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, *, leave: int) -> Path:
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - leave)
    return filler


def test_a_full_disk_is_a_permanent_error_and_leaves_nothing(
    small_disk: Path, tmp_path: Path
) -> None:
    content = bytes(2 << 20)
    (tmp_path / "source").write_bytes(content)
    storage.write_bytes(str(small_disk / "old"), b"old")
    for act in (
        lambda: storage.write_bytes(str(small_disk / "old"), content),
        lambda: storage.write_new(str(small_disk / "new"), content),
        lambda: storage.upload(tmp_path / "source", str(small_disk / "new")),
        lambda: storage.download(str(tmp_path / "source"), small_disk / "new"),
    ):
        with pytest.raises(StorageError, match=r"No space left on device.*; free some space"):
            act()
    assert [path.name for path in small_disk.iterdir()] == ["old"]
    assert storage.read_bytes(str(small_disk / "old")) == b"old"


def test_a_stage_goes_on_once_there_is_space(small_disk: Path, tmp_path: Path) -> None:
    dataset = Dataset(tmp_path, ["t1", "t2", "v1"])
    inputs = dataset.inputs()
    expected, _ = run(gvf, dataset.config(), inputs)
    config = dataset.config().model_copy(update={"root": str(small_disk)})
    filler = fill(small_disk, leave=8192)
    with pytest.raises(StorageError, match="No space left"):
        run(gvf, config, inputs)
    filler.unlink()
    found, _ = run(gvf, config, inputs)
    wanted = contents(expected.artifact)
    del wanted["artifact.json"]
    assert {name: contents(found.artifact)[name] for name in wanted} == wanted


def test_a_full_folder_for_temporary_files_is_named(
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset = Dataset(tmp_path, ["t1", "t2", "v1"])
    fill(small_disk, leave=0)
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with pytest.raises(OSError, match="No space left") as caught:
        run(gvf, dataset.config(), dataset.inputs())
    assert report_error(caught.value) == 2
    assert f"temporary files go to {small_disk}" in capsys.readouterr().err
    assert storage.list_objects(f"{dataset.root}/shards") == []

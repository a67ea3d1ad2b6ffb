"""A catalogue's datasets: listed, kept apart, and what is new in each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes import FakeStages
from tsp_core import pipeline, storage
from tsp_core.catalogue import Dataset, by_endpoint, look_at, read_catalogue, select
from tsp_core.config.io import load_config
from tsp_core.errors import ConfigError


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    return FakeStages().install(monkeypatch)


def write(folder: Path, name: str, text: str = "") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or f"name: {path.stem}\nroot: {folder}/out\n")
    return path


def names(catalogue: list[Dataset]) -> list[str]:
    return [item.name for item in catalogue]


def problems(catalogue: list[Dataset]) -> dict[str, str]:
    return {item.uri.rsplit("/", 1)[-1]: item.problem for item in catalogue if item.problem}


def test_a_folder_has_its_own_files_only(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.txt", "below/d.yaml", "out/runs/e.yaml"):
        write(tmp_path, name)
    assert sorted(names(read_catalogue(str(tmp_path)))) == ["a", "b"]
    assert names(read_catalogue(f"{tmp_path}/*/*.yaml")) == ["d"]
    assert names(read_catalogue(str(tmp_path / "b.yaml"))) == ["b"]


def test_a_catalogue_on_a_store() -> None:
    storage.write_bytes("memory://sets/a.yaml", b"name: a\nroot: memory://out\n")
    storage.write_bytes("memory://sets/deeper/b.yaml", b"name: b\nroot: memory://out\n")
    (found,) = read_catalogue("memory://sets")
    assert (found.name, found.problem) == ("a", "")
    storage.delete("memory://sets", recursive=True)


def test_an_empty_catalogue_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"datasets: '.*': no configuration .* one file per"):
        read_catalogue(str(tmp_path))


def test_what_is_wrong_with_one_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml")
    write(tmp_path, "b.yaml", f"name: b\nroot: {tmp_path}\nexport: {{stirde: 8}}\n")
    write(tmp_path, "c.yaml", "name: [")
    found = read_catalogue(str(tmp_path))
    assert sorted(names(found)) == ["a", "b", "c"]
    assert set(problems(found)) == {"b.yaml", "c.yaml"}
    assert "export.stirde: unknown key; did you mean 'stride'?" in problems(found)["b.yaml"]


@pytest.mark.parametrize("other", ["kitchen", "Kitchen", "kit_chen"])
def test_one_name_for_two_datasets_is_refused_for_both(tmp_path: Path, other: str) -> None:
    first = "kit-chen" if other == "kit_chen" else "kitchen"
    write(tmp_path, "a.yaml", f"name: {first}\nroot: {tmp_path}/out\n")
    write(tmp_path, "b.yaml", f"name: {other}\nroot: {tmp_path}/out\n")
    write(tmp_path, "c.yaml", f"name: gym\nroot: {tmp_path}/out\n")
    found = problems(read_catalogue(str(tmp_path)))
    assert set(found) == {"a.yaml", "b.yaml"}
    assert f"name: '{first}': also that of {tmp_path}/b.yaml" in found["a.yaml"]
    assert "give each dataset of a catalogue a name of its own" in found["b.yaml"]


def test_datasets_of_one_endpoint_are_looked_at_together(
    fakes: FakeStages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a catalogue leaves the endpoint as it is; looking at a dataset goes to its own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://before")
    for name, port in (("a", 1), ("b", 2), ("c", 1)):
        endpoint = f"runtime: {{endpoint_url: 'http://127.0.0.1:{port}'}}"
        write(tmp_path, f"{name}.yaml", f"name: {name}\nroot: out\n{endpoint}\n")
    write(tmp_path, "d.yaml", "name: d\nroot: out\n")
    write(tmp_path, "e.yaml", "name: [")
    found = read_catalogue(str(tmp_path))
    assert set(problems(found)) == {"e.yaml"}
    assert storage.endpoint() == "http://before"
    assert [names(group) for group in by_endpoint(found)] == [["a", "c"], ["b"], ["d", "e"]]
    for group, expected in zip(
        by_endpoint(found),
        ("http://127.0.0.1:1", "http://127.0.0.1:2", "http://before"),
        strict=True,
    ):
        with storage.endpoint_restored():
            for item in group:
                if item.config is not None:
                    look_at(item.config, "ingest")
                assert storage.endpoint() == expected


def test_the_endpoint_of_one_file_is_not_that_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with storage.endpoint_restored():
        storage.use_endpoint("http://127.0.0.1:1")
    assert "AWS_ENDPOINT_URL" not in os.environ


def test_picking_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml")
    write(tmp_path, "b.yaml")
    catalogue = read_catalogue(str(tmp_path))
    for only in ("a", str(path), f"file://{path}"):
        assert names(select(catalogue, only)) == ["a"]
    with pytest.raises(ConfigError, match="only: 'x': not in the catalogue, which has a, b"):
        select(catalogue, "x")


def test_what_is_new(fakes: FakeStages, tmp_path: Path) -> None:
    path = str(write(tmp_path, "a.yaml"))
    config = load_config(path)
    before = look_at(config, "export")
    assert [entry.stage for entry in before.to_do] == [
        *("ingest", "annotate", "index", "gvf", "pretrain", "export")
    ]
    assert before.news == "ingest: never run; then annotate, index, gvf, pretrain, export"
    assert look_at(config, "export").fingerprint == before.fingerprint

    pipeline.run_all(config, through="export")
    assert look_at(config, "export").news == ""
    assert look_at(config, "evaluate").news == "evaluate: never run"

    changed = load_config(path, assignments=["export.stride=8"])
    after = look_at(changed, "export")
    assert after.news == "export: export.stride 16 → 8"
    assert after.fingerprint != before.fingerprint


def test_another_machine_setting_is_another_try(fakes: FakeStages, tmp_path: Path) -> None:
    """What failed for `ingest.max_bad_fraction` is tried again when that is raised."""
    path = str(write(tmp_path, "a.yaml"))
    raised = load_config(path, assignments=["ingest.max_bad_fraction=0.5"])
    assert look_at(load_config(path), "ingest").fingerprint != look_at(raised, "ingest").fingerprint

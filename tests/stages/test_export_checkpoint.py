"""What is found out about `export.checkpoint` before the first video is decoded."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.features.clips import ENCODER
from tests.stages.dataset import Dataset
from tsp_core import storage
from tsp_core.config import EncoderConfig
from tsp_core.errors import WeightsError
from tsp_core.model.checkpoint import check_weights_file
from tsp_core.model.identity import weights_source
from tsp_core.model.weights import load_encoder
from tsp_core.pipeline import check_beginning


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epoch,loss\n0,1.5\n", "not a weights file"),
        (b"PK\3\4 and no more", "not a weights file, damaged"),
        (b"\x80\2 and no more", "not a weights file, damaged"),
        (None, "cannot read: .*check the path or URI"),
    ],
)
def test_a_checkpoint_that_is_none_is_found_at_the_beginning(
    dataset: Dataset, tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "best.pth").write_bytes(content)
    config = dataset.config(export={"checkpoint": str(tmp_path / "best.pth")})
    with pytest.raises(WeightsError, match=rf"^export\.checkpoint: .*best\.pth.*{message}"):
        check_beginning(config, ("export",))


def test_a_checkpoint_of_another_encoder_is_found_at_the_beginning(
    dataset: Dataset, tmp_path: Path
) -> None:
    torch.save({"stem.0.weight": torch.zeros(3)}, tmp_path / "own.pth")
    config = dataset.config(export={"checkpoint": str(tmp_path / "own.pth")})
    with pytest.raises(WeightsError, match=rf"^export.checkpoint: .*not the weights of {ENCODER}"):
        check_beginning(config, ("export",))


def test_of_a_remote_checkpoint_little_is_read_at_the_beginning(
    dataset: Dataset, tmp_path: Path
) -> None:
    encoder = load_encoder(EncoderConfig(name=ENCODER, weights="random:5")).encoder
    torch.save(encoder.state_dict(), tmp_path / "own.pth")
    torch.save(encoder.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "own.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "no weights")
    contents = {
        "own": whole,
        "old": (tmp_path / "old.pth").read_bytes(),
        "cut": whole[: len(whole) // 2],
        "text": b"epoch,loss\n",
        "other": (tmp_path / "other.zip").read_bytes(),
        "empty": b"",
    }
    for name, content in contents.items():
        uri = f"memory://checkpoints-{tmp_path.name}/{name}.pth"
        storage.write_bytes(uri, content)
        config = dataset.config(export={"checkpoint": uri})
        if name in ("own", "old"):
            check_beginning(config, ("export",))
            continue
        with pytest.raises(WeightsError, match=rf"^export\.checkpoint: .*{name}\.pth': not a weig"):
            check_beginning(config, ("export",))


def test_the_tensors_of_a_remote_checkpoint_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(io.BytesIO):
        num_read = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.num_read += len(data)
            return data

    file = Counted()
    torch.save({"weight": torch.zeros(1_000_000)}, file)
    size = file.tell()

    def read(uri: str, work: Any) -> Any:
        file.seek(0)
        return work(file)

    monkeypatch.setattr(storage, "read_with", read)
    check_weights_file(weights_source("memory://store/own.pth", ENCODER), ENCODER)
    assert 0 < file.num_read < size / 100

"""Which weights are meant, the published files, and what identifies weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from torchvision.models import WeightsEnum, video

from tsp_core import storage
from tsp_core.errors import WeightsError
from tsp_core.model.encoders import ENCODERS
from tsp_core.model.identity import weights_identity, weights_source
from tsp_core.model.published import file_named, kinetics_file, released_files


def test_thirteen_released_checkpoints_are_known() -> None:
    files = released_files()
    assert len(files) == 13
    for name, file in files.items():
        assert file.encoder in ENCODERS
        assert name.startswith(f"{file.encoder}-")
        assert file.filename.endswith(f"-{file.sha256_prefix}.pth")
    with_gvf = {name: file.gvf for name, file in files.items() if file.gvf != "none"}
    assert with_gvf == {
        "r2plus1d_34-tsp_on_activitynet": "max",
        "r2plus1d_34-tsp_on_activitynet-avg_gvf": "avg",
        "r2plus1d_34-tsp_on_thumos14": "max",
        "r2plus1d_18-tsp_on_activitynet": "max",
        "r3d_18-tsp_on_activitynet": "max",
    }


@pytest.mark.parametrize(
    ("encoder", "weights"),
    [
        ("r2plus1d_18", video.R2Plus1D_18_Weights.KINETICS400_V1),
        ("r3d_18", video.R3D_18_Weights.KINETICS400_V1),
        ("mc3_18", video.MC3_18_Weights.KINETICS400_V1),
    ],
)
def test_kinetics_files_are_those_of_torchvision(encoder: str, weights: WeightsEnum) -> None:
    file = kinetics_file(encoder)
    assert file is not None
    assert file.url == weights.url
    assert file.filename == f"{encoder}-{file.sha256_prefix}.pth"


def test_published_files_are_identified_by_their_hash_wherever_they_are() -> None:
    assert weights_identity("kinetics", "r2plus1d_34") == "sha256:0aa0550b"
    assert weights_identity("kinetics", "r2plus1d_34", mirror="s3://mirror/w") == "sha256:0aa0550b"
    copy = "s3://elsewhere/r2plus1d_34_clip8_ft_kinetics_from_ig65m-0aa0550b.pth"
    assert weights_identity(copy, "r2plus1d_34") == "sha256:0aa0550b"
    name = "r3d_18-tac_on_kinetics"
    assert weights_identity(name, "r3d_18") == weights_identity(name, None) == "sha256:dcd952c6"


def test_a_mirror_holds_published_files_under_their_published_names(tmp_path: Path) -> None:
    source = weights_source("kinetics", "r3d_18", mirror=str(tmp_path))
    assert source.uri == f"{tmp_path}/r3d_18-b3b3357e.pth"
    assert source.published == file_named("r3d_18-b3b3357e.pth")
    assert source.sha256_prefix == "b3b3357e"


def test_local_files_are_identified_by_content(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(b"weights")
    identity = weights_identity(str(file), None)
    assert identity == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    assert weights_identity(f"file://{file}", None) == identity


def test_remote_files_are_identified_by_what_the_store_says() -> None:
    uri = "memory://identity/mine.pth"
    storage.write_bytes(uri, b"weights")
    first = weights_identity(uri, None)
    assert first.startswith("object:")
    assert weights_identity(uri, None) == first
    storage.write_bytes(uri, b"other weights")
    assert weights_identity(uri, None) != first
    assert weights_identity(uri, None, sha256_prefix="abcdef") == "sha256:abcdef"


def test_drawn_weights_are_identified_by_seed_and_encoder() -> None:
    identity = weights_identity("random:3", "r3d_18")
    assert identity == weights_identity("random:03", "r3d_18")
    assert len({identity, *(weights_identity(f"random:{s}", "mc3_18") for s in (3, 4))}) == 3


@pytest.mark.parametrize("weights", ["random:", "random:x", "random:-1", f"random:{2**63}"])
def test_a_wrong_seed_is_refused(weights: str) -> None:
    with pytest.raises(WeightsError, match=r"seed must be a whole number from 0 to 2\^63-1"):
        weights_source(weights, "r3d_18")


@pytest.mark.parametrize("weights", ["kinetics", "random:0"])
def test_the_encoder_must_be_named_where_no_file_tells(weights: str) -> None:
    with pytest.raises(WeightsError, match="name the encoder too"):
        weights_source(weights, None)


def test_the_tiny_encoder_has_no_kinetics_weights() -> None:
    with pytest.raises(WeightsError, match=r"no Kinetics weights .* 'r2plus1d_tiny'; use 'random"):
        weights_source("kinetics", "r2plus1d_tiny")


def test_a_released_checkpoint_of_another_encoder_is_refused_at_once() -> None:
    with pytest.raises(WeightsError, match="a checkpoint of r3d_18, asked for mc3_18; set the enc"):
        weights_source("r3d_18-tac_on_kinetics", "mc3_18")


def test_an_unknown_name_is_refused_with_the_closest() -> None:
    with pytest.raises(WeightsError, match="did you mean 'r3d_18-tac_on_kinetics'"):
        weights_source("r3d_18-tac_kinetics", "r3d_18")
    with pytest.raises(WeightsError, match="neither a file nor a known name; the names are kineti"):
        weights_source("zzz", "r3d_18")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read: .*no\.pth.*check the path or URI"):
        weights_identity(str(tmp_path / "no.pth"), None)
    with pytest.raises(WeightsError, match=r"cannot read: memory://none/no\.pth"):
        weights_identity("memory://none/no.pth", None)

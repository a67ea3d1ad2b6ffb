"""Trained video weights, from a file and from an S3 server, through the whole pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest
import torch

from tests.servers import s3_store
from tsp_core import pipeline, storage
from tsp_core.config import EncoderConfig
from tsp_core.config.io import load_config
from tsp_core.errors import WeightsError
from tsp_core.model.checkpoint import load_checkpoint
from tsp_core.model.weights import load_encoder

pytestmark = pytest.mark.shared
FILE = "weights/mc3_18_kinetics400_finetuned_fight.pth"


@pytest.mark.slow
def test_an_encoder_from_real_weights_runs_the_whole_pipeline(
    shared: Path, tiny_demo: Path, tmp_path: Path
) -> None:
    config = load_config(
        str(tiny_demo),
        assignments=[
            f"root={tmp_path}",
            "encoder.name=mc3_18",
            f"encoder.weights={shared / FILE}",
            "pretrain.stem_lr=0",
            "pretrain.clips_per_segment=1",
            "evaluate.clips_per_segment=1",
        ],
    )
    reports = pipeline.run_all(config)
    assert set(reports) == set(pipeline.INPUTS)
    trained = load_checkpoint(reports["pretrain"].artifact.file("best.pth"))
    initial = load_encoder(config.encoder).encoder.state_dict()
    state = trained.model.features.state_dict()
    assert torch.equal(state["stem.0.weight"], initial["stem.0.weight"])  # rate 0
    assert not torch.equal(state["layer1.0.conv1.0.weight"], initial["layer1.0.conv1.0.weight"])
    manifest = json.loads(storage.read_bytes(reports["export"].artifact.file("manifest.json")))
    assert (manifest["encoder"], manifest["feature_size"]) == ("mc3_18", 512)


@pytest.mark.server
@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")
def test_weights_load_from_an_s3_mirror_hash_checked(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = storage.sha256_of_file(shared / FILE)
    with s3_store(tmp_path) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=store.endpoint_url)
        client.upload_file(str(shared / FILE), store.bucket, "mirror/mc3.pth")
        uri = f"s3://{store.bucket}/mirror/mc3.pth"

        def load(prefix: str) -> torch.Tensor:
            encoder = EncoderConfig(name="mc3_18", weights=uri, sha256_prefix=prefix)
            loaded = load_encoder(encoder, cache_dir=str(tmp_path / prefix))
            weight: torch.Tensor = loaded.encoder.state_dict()["stem.0.weight"]
            return weight

        local = load_encoder(EncoderConfig(name="mc3_18", weights=str(shared / FILE)))
        assert torch.equal(load(digest[:8]), local.encoder.state_dict()["stem.0.weight"])
        with pytest.raises(WeightsError, match="00000000"):
            load("00000000")

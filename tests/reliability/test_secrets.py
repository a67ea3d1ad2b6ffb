"""Credentials in URIs are refused, wherever they stand, and shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsp_core.config import IngestConfig
from tsp_core.config.io import load_config
from tsp_core.credentials import embedded_credentials
from tsp_core.errors import ConfigError, VideoError
from tsp_core.features.given import video_name
from tsp_core.video.files import local_video
from tsp_core.video.listing import list_sources

SECRET = "hunter2"
URIS = {
    "password": f"s3://AKIA:{SECRET}@bucket/x",
    "endpoint": f"https://user:{SECRET}@host:9000",
    "token as user": f"https://{SECRET}@host/x",
    "presigned": f"https://host/x.mp4?X-Amz-Credential=a&X-Amz-Signature={SECRET}",
    "SAS": f"https://host/x.mp4?sv=1&sig={SECRET}",
    "capitals": f"HTTPS://host/x?Signature={SECRET}&AWSAccessKeyId=y",
}
KEYS = (
    "root",
    "ingest.videos",
    "annotate.annotations",
    "encoder.weights",
    "encoder.mirror",
    "gvf.file",
    "export.checkpoint",
    "runtime.endpoint_url",
    "runtime.cache_dir",
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("root: out\n")
    return path


@pytest.mark.parametrize("uri", URIS.values(), ids=URIS)
@pytest.mark.parametrize("key", KEYS)
def test_every_setting_refuses_them(config: Path, key: str, uri: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: .* carries a .*environment") as caught:
        load_config(str(config), assignments=[f"{key}={uri}"])
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("uri", URIS.values(), ids=URIS)
def test_files_and_lists_refuse_them(config: Path, tmp_path: Path, uri: str) -> None:
    config.write_text(f"root: out\ningest: {{videos: [a.mp4, '{uri}']}}\n")
    with pytest.raises(ConfigError, match=r"ingest\.videos: .* carries a") as caught:
        load_config(str(config))
    assert SECRET not in str(caught.value)
    (tmp_path / "list.csv").write_text(f"uri\na.mp4\n{uri}\n")
    with pytest.raises(ConfigError, match=r"list\.csv: row 2: .* carries a") as caught:
        list_sources(IngestConfig(videos=str(tmp_path / "list.csv")))
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match=r"the configuration's URI: .* carries a") as caught:
        load_config(uri)
    assert SECRET not in str(caught.value)


def test_what_a_variable_stood_for_is_not_shown(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED", f"[{SECRET}")
    config.write_text("root: ${PLANTED}\n")
    with pytest.raises(ConfigError, match=r"not valid YAML: .* in line 2, column 1") as caught:
        load_config(str(config))
    assert SECRET not in str(caught.value)
    other = config.with_name("other.yaml")
    other.write_text("root: out\n")
    for assignment in (f"root=[s3://a:{SECRET}@b", f"root: s3://a:{SECRET}@b"):
        with pytest.raises(ConfigError, match="--set") as caught:
            load_config(str(other), assignments=[assignment])
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/a:b@c/d",
        "hdfs://user@host/x",
        "https://host/a.mp4?versionId=3",
        "/a?sig=b",
        "x",
    ],
)
def test_other_uris_are_fine(uri: str) -> None:
    assert embedded_credentials(uri) is None


def test_names_and_messages_of_signed_uris_have_no_signature(tmp_path: Path) -> None:
    uri = f"https://host/folder/clip.one.mp4?X-Amz-Signature={SECRET}.x"
    assert video_name(uri) == "clip.one"
    memory = f"memory://none/clip.mp4?token={SECRET}"
    with (
        pytest.raises(VideoError, match=r"'clip\.mp4': no such object") as caught,
        local_video(memory, None, str(tmp_path)),
    ):
        pass
    assert SECRET not in str(caught.value)

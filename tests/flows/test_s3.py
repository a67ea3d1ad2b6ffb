"""The real pipeline with its root on a real S3 server; no credential is written anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.servers import REPOSITORY, S3Store, prefect_home, s3_store

pytestmark = [pytest.mark.server, pytest.mark.slow]


PLANTED = "planted-in-a-uri-93ac"


def tsp(*arguments: str, environment: dict[str, str], status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=540,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def client_of(store: S3Store) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        region_name="us-east-1",
    )


def stored_objects(store: S3Store) -> dict[str, bytes]:
    client = client_of(store)
    found = client.list_objects_v2(Bucket=store.bucket)
    return {
        item["Key"]: client.get_object(Bucket=store.bucket, Key=item["Key"])["Body"].read()
        for item in found["Contents"]
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")
def test_everything_on_s3_and_no_credential_anywhere(tiny_demo: Path, tmp_path: Path) -> None:
    with s3_store(tmp_path) as store:
        root = f"s3://{store.bucket}/runs/demo"
        environment = {
            **store.environment,
            "PREFECT_HOME": str(prefect_home(tmp_path / "prefect")),
            "PREFECT_API_URL": "",
            "OMP_NUM_THREADS": "1",
        }
        del environment["AWS_ENDPOINT_URL"]  # by configuration only
        for video in (tiny_demo.parent / "videos").iterdir():
            client_of(store).upload_file(str(video), store.bucket, f"videos/{video.name}")
        changes = (
            *("--set", f"root={root}"),
            *("--set", f"ingest.videos=s3://{store.bucket}/videos"),
            *("--set", f"runtime.endpoint_url={store.endpoint_url}"),
            *("--set", f"runtime.cache_dir={tmp_path / 'cache'}"),
        )
        output = tsp("run", str(tiny_demo), *changes, environment=environment)
        status = tsp("status", str(tiny_demo), *changes, environment=environment)
        refused = [
            tsp("run", str(tiny_demo), "--set", change, environment=environment, status=2)
            for change in (
                f"root=s3://{store.access_key}:{PLANTED}@{store.bucket}/runs",
                f"runtime.endpoint_url=http://user:{PLANTED}@127.0.0.1:9",
                f"ingest.videos=https://127.0.0.1:9/a.mp4?X-Amz-Signature={PLANTED}",
            )
        ]
        objects = stored_objects(store)

    assert f"{root}/export/" in output
    assert "validation action accuracy" in output
    assert status.count("done") == 7
    names = [name.rsplit("/", 1)[1] for name in objects]
    assert names.count("artifact.json") == 7
    assert {"videos.parquet", "gvf.h5", "best.pth", "features.h5", "report.html"} <= set(names)

    videos = [data for name, data in objects.items() if name.endswith("videos.parquet")]
    assert [b"s3://" in data for data in videos] == [True]

    assert all("carries a" in text for text in refused)
    places = [*(tmp_path / "prefect").rglob("*"), *(tmp_path / "cache").rglob("*")]
    written = {str(path): path.read_bytes() for path in places if path.is_file()}
    assert any(data.startswith(b"SQLite format 3") for data in written.values())
    texts = {"output": output, "status": status, "refused": "".join(refused)}
    written |= {name: text.encode() for name, text in texts.items()} | objects
    secrets = (store.secret_key.encode(), PLANTED.encode())
    assert [name for name, data in written.items() if any(it in data for it in secrets)] == []

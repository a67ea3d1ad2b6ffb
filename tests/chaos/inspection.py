"""Looks at a root as a reader sees it: what is whole, what is half-written, what was done twice."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import torch

from tsp_core import artifacts, storage
from tsp_core.artifacts import MARKER
from tsp_core.config import STAGE_NAMES


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What of a root must not be done again.

    Attributes:
        tokens: Change token of every shard and of every file of a complete artifact, by URI.
        iteration: Optimiser steps in the training checkpoint; None where there is none.
    """

    tokens: dict[str, str] = field(default_factory=dict)
    iteration: int | None = None


def look(root: str, *, is_finished: bool = False) -> tuple[Snapshot, list[str]]:
    """Take a snapshot and list the faults that a reader could run into."""
    faults: list[str] = []
    objects = {item.uri: item for item in storage.list_objects(root)}
    names = {uri: uri.removeprefix(root).lstrip("/") for uri in objects}
    tokens: dict[str, str] = {}
    for uri, name in names.items():
        if name.split("/")[0] == "shards":
            tokens[uri] = objects[uri].token
            faults += _shard_faults(uri)
        elif name.split("/")[0] in STAGE_NAMES and name.endswith(f"/{MARKER}"):
            folder = uri.removesuffix(f"/{MARKER}")
            faults += artifact_faults(folder)
            of_artifact = {key: item for key, item in objects.items() if key.startswith(folder)}
            tokens |= {key: item.token for key, item in of_artifact.items()}
    faults += _videos_done_twice([uri for uri in tokens if "/shards/" in uri])
    states = [uri for uri, name in names.items() if name.endswith("/state.pt")]
    if is_finished and states:
        faults.append(f"{states[0]} is left behind")
    iteration = _iteration(states[0]) if states else None
    return Snapshot(tokens=tokens, iteration=iteration), faults


def repeated_work(before: Snapshot, after: Snapshot, iterations: list[int]) -> list[str]:
    """What a run did although it was done: objects written anew, optimiser steps taken again."""
    faults = [
        f"{uri} was there and was written again"
        for uri, token in before.tokens.items()
        if after.tokens.get(uri) != token
    ]
    if before.iteration is not None and iterations and iterations[0] < before.iteration:
        faults.append(f"trained from step {iterations[0]}, {before.iteration} were saved")
    return faults


def published_files(root: str) -> dict[str, str]:
    """SHA-256 of every file of every complete artifact, by name below the root."""
    found: dict[str, str] = {}
    for item in storage.list_objects(root):
        name = item.uri.removeprefix(root).lstrip("/")
        if name.split("/")[0] in STAGE_NAMES:
            found[name] = hashlib.sha256(storage.read_bytes(item.uri)).hexdigest()
    return found


def artifact_faults(uri: str) -> list[str]:
    """Where a complete artifact is not what its marker says."""
    faults = []
    for name, entry in artifacts.read_marker(uri).files.items():
        path = storage.join(uri, name)
        if not storage.exists(path):
            faults.append(f"{path} is in the marker and not there")
            continue
        content = storage.read_bytes(path)
        if (len(content), hashlib.sha256(content).hexdigest()) != (entry.size_bytes, entry.sha256):
            faults.append(f"{path} is not what the marker says")
    return faults


def _shard_faults(uri: str) -> list[str]:
    try:
        pq.read_table(io.BytesIO(storage.read_bytes(uri)))
    except Exception as error:
        return [f"{uri} cannot be read: {error}"]
    return []


def _videos_done_twice(shards: list[str]) -> list[str]:
    counts: Counter[tuple[str, str]] = Counter()
    for uri in shards:
        folder = uri.rsplit("/", 1)[0]
        file = pq.ParquetFile(io.BytesIO(storage.read_bytes(uri)))
        index = (file.metadata.metadata or {}).get(b"tsp.videos")
        if index is None:
            videos = file.read(columns=["uri"])["uri"].to_pylist()
        else:
            videos = [entry["video"] for entry in json.loads(index)]
        counts.update((folder, video) for video in videos)
    return [
        f"{video} was computed twice in {where}" for (where, video), n in counts.items() if n > 1
    ]


def _iteration(state_uri: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.pt")
        storage.download(state_uri, path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    return int(content["position"]["iteration"])

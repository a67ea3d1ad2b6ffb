"""What ingest does about proxies: which are missing, how they are made, which there are.

They lie in `ROOT/proxies/SETTINGS/`, one object per content of a video. An object appears whole or
not at all, so that what has its name can be trusted, whoever was killed while writing.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tsp_core import storage
from tsp_core.artifacts import ArtifactRef, fingerprint_of
from tsp_core.config import Config
from tsp_core.errors import VideoError
from tsp_core.schemas import PROXIES, read_table, table_from_rows
from tsp_core.stages.base import Shard, ShardReport
from tsp_core.video.listing import Source
from tsp_core.video.proxy import existing_proxies, proxy_settings, proxy_uri

TABLE = "proxies.parquet"

_log = logging.getLogger(__name__)

Row = Mapping[str, Any]


def recipe_of(config: Config) -> dict[str, str]:
    """What the proxies add to ingest's recipe: nothing without them."""
    if not config.ingest.proxy.enabled:
        return {}
    return {"proxies": fingerprint_of(_settings(config))}


def are_there(config: Config, artifact: ArtifactRef) -> bool:
    """Tell whether the proxies that ingest has published are still there."""
    if not config.ingest.proxy.enabled:
        return True
    published = read_table(artifact.file(TABLE), PROXIES.name, columns=["content_hash"])
    existing = existing_proxies(config.root_uri, _settings(config))
    return existing.keys() >= set(published["content_hash"].to_pylist())


def plan_shards(
    config: Config, probed: Mapping[tuple[str, str], Row], done: Mapping[tuple[str, str], str]
) -> list[tuple[str, tuple[str, ...]]]:
    """Plan the proxies of videos that were probed before: after the option was turned on, say.

    Args:
        config: The configuration.
        probed: Rows of the table `PROBES` by URI and token.
        done: Their shards.

    Returns:
        For each batch the probes' shard, and the videos' items for `Shard.videos`.
    """
    existing = existing_proxies(config.root_uri, _settings(config))
    missing: dict[str, list[str]] = {}
    for key, row in sorted(probed.items()):
        if row["status"] == "ok" and row["content_hash"] not in existing:
            existing[row["content_hash"]] = 0  # one will do for several files of this content
            missing.setdefault(done[key], []).append(json.dumps({"file": key}))
    return [(uri, tuple(items)) for uri, items in missing.items()]

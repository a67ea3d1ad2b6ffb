"""Where proxies are, and what determines one; no decoder is needed to know.

A proxy is named by the SHA-256 of its video and by the settings it was made with.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsp_core import storage
from tsp_core.artifacts import fingerprint_of
from tsp_core.config import ClipConfig, ProxyConfig
from tsp_core.errors import ObjectNotFoundError, VideoError
from tsp_core.video.files import proxy_cache

VERSIONS = {"mjpeg": 2, "h264": 3}
"""By codec; raised when the same video and settings give another file."""

FOLDER = "proxies"
"""Folder of all proxies, below the root."""

_DEFAULT_QUALITY = {"mjpeg": 2, "h264": 18}
_SUFFIX = ".arrow"


def proxy_settings(proxy: ProxyConfig, clip: ClipConfig) -> dict[str, Any]:
    """All that determines a proxy, apart from the video; plain JSON values."""
    is_mjpeg = proxy.codec == "mjpeg"
    return {
        "version": VERSIONS[proxy.codec],
        "codec": proxy.codec,
        "quality": proxy.quality or _DEFAULT_QUALITY[proxy.codec],
        "keyframe_interval": 1 if is_mjpeg else proxy.keyframe_interval,
        "frames": proxy.frames,
        "frame_rate": clip.frame_rate,
        "size": [clip.resize_height, clip.resize_width],
        "color": clip.color,
    }


def proxies_folder(root: str, settings: Mapping[str, Any]) -> str:
    """Folder of the proxies that were made with some settings."""
    return storage.join(root, FOLDER, fingerprint_of(settings))


def proxy_name(content_hash: str) -> str:
    """Name of the proxy of a video in its folder."""
    return content_hash + _SUFFIX


def proxy_uri(root: str, settings: Mapping[str, Any], content_hash: str) -> str:
    """Where the proxy of a video is."""
    return storage.join(proxies_folder(root, settings), proxy_name(content_hash))


def existing_proxies(root: str, settings: Mapping[str, Any]) -> dict[str, int]:
    """Size in bytes of each proxy that is there, by the SHA-256 of its video."""
    names = (
        (item.uri.rsplit("/", 1)[-1], item.size_bytes)
        for item in storage.list_objects(proxies_folder(root, settings))
    )
    return {name.removesuffix(_SUFFIX): size for name, size in names if name.endswith(_SUFFIX)}


def local_proxy(uri: str, cache_dir: str | None) -> Path:
    """Return a local path of a proxy; a remote one is downloaded once into the cache.

    Raises:
        VideoError: missing: somebody has deleted it.
        StorageUnavailableError: The store does not answer now.
    """
    if storage.is_local(uri):
        return storage.local_path(uri)
    cached = proxy_cache(cache_dir).joinpath(*uri.rsplit("/", 2)[1:])
    if not cached.is_file():
        try:
            storage.download(uri, cached)
        except ObjectNotFoundError:
            raise VideoError("missing", f"{uri}: no such proxy; run ingest again") from None
    with contextlib.suppress(OSError):
        os.utime(cached)  # used now: `tsp prune` looks for what nobody uses
    return cached

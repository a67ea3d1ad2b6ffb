"""The published weight files: Kinetics weights of the encoders and the released checkpoints.

Facts only (address, SHA-256 prefix, what is inside); they are read from `published_weights.json`.
This module does not import torch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One published weight file.

    Attributes:
        name: What configurations call it: "kinetics", or the name of a released checkpoint.
        encoder: The encoder it fits.
        url: Where it is published.
        sha256_prefix: First digits of the SHA-256 of the file.
        about: What it holds, for people.
        gvf: Pooling of the global video features a released checkpoint was trained with: "max",
            "avg" or "none".
    """

    name: str
    encoder: str
    url: str
    sha256_prefix: str
    about: str
    gvf: str = "none"

    @property
    def filename(self) -> str:
        """The published file name, under which mirrors hold it."""
        return self.url.rsplit("/", 1)[-1]


def kinetics_file(encoder: str) -> PublishedFile | None:
    """The Kinetics-400 weights of an encoder, or None where none are published."""
    return _kinetics().get(encoder)


def released_files() -> Mapping[str, PublishedFile]:
    """The 13 released checkpoints by name."""
    return _released()


def file_named(filename: str) -> PublishedFile | None:
    """The published file of this name, so that a copy of it anywhere can be checked."""
    files = (*_kinetics().values(), *_released().values())
    return next((file for file in files if file.filename == filename), None)


@functools.cache
def _facts() -> dict[str, dict[str, dict[str, str]]]:
    text = resources.files("tsp_core.model").joinpath("published_weights.json").read_text("utf-8")
    facts: dict[str, dict[str, dict[str, str]]] = json.loads(text)
    return facts


@functools.cache
def _kinetics() -> dict[str, PublishedFile]:
    return {
        encoder: PublishedFile(
            name="kinetics",
            encoder=encoder,
            url=entry["url"],
            sha256_prefix=entry["sha256_prefix"],
            about=f"{encoder}, {entry['about']}",
        )
        for encoder, entry in _facts()["kinetics"].items()
    }


@functools.cache
def _released() -> dict[str, PublishedFile]:
    return {
        name: PublishedFile(
            name=name,
            encoder=entry["encoder"],
            url=entry["url"],
            sha256_prefix=entry["sha256_prefix"],
            about=f"{entry['encoder']}, {entry['heads'].upper()} on {entry['trained_on']}",
            gvf=entry["gvf"],
        )
        for name, entry in _facts()["released"].items()
    }

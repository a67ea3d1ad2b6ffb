"""Published artifacts: named by what determines them, visible only when complete.

An artifact is a folder `ROOT/STAGE/FINGERPRINT/`. Its fingerprint is the hash of a `Recipe`: the
stage, the version of its code's output, the configuration that matters and the digests of its
inputs. The marker `artifact.json`, written last, lists every file with size and SHA-256; readers
trust only the marker. The digest of an artifact is the hash of what is in it, so a stage that ran
again and came to the same result leaves what follows it fresh.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tsp_core import storage
from tsp_core.errors import ArtifactError, ObjectNotFoundError

MARKER = "artifact.json"
MARKER_VERSION = 1


class Frozen(BaseModel):
    """Base of the records that cross modules: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Recipe(Frozen):
    """What determines an artifact's content.

    Attributes:
        stage: Name of the stage.
        version: Raised whenever the stage's code gives another output for the same input.
        config: The configuration that matters, as plain JSON values.
        inputs: Digest of each input by name.
    """

    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits."""
        return fingerprint_of(self.model_dump(mode="json"))


class FileEntry(Frozen):
    """A file of an artifact: bytes and SHA-256."""

    size_bytes: int
    sha256: str


class ArtifactRef(Frozen):
    """A published artifact, small enough to pass between tasks."""

    stage: str
    uri: str
    fingerprint: str
    digest: str

    def file(self, name: str) -> str:
        """URI of one of its files."""
        return storage.join(self.uri, name)


class Marker(Frozen):
    """Content of `artifact.json`."""

    marker_version: int = MARKER_VERSION
    recipe: Recipe
    digest: str
    files: dict[str, FileEntry]
    summary: dict[str, Any] = Field(default_factory=dict)


def fingerprint_of(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def artifact_uri(root: str, recipe: Recipe) -> str:
    """Where the artifact of a recipe is."""
    return storage.join(root, recipe.stage, recipe.fingerprint)


def shard_uri(root: str, stage: str, work_fingerprint: str, key: str) -> str:
    """Where a shard of per-video results is; `key` is a hash of what is in it."""
    return storage.join(root, "shards", stage, work_fingerprint, f"{key}.parquet")


def find(root: str, recipe: Recipe) -> ArtifactRef | None:
    """Return the published artifact of a recipe, or None."""
    uri = artifact_uri(root, recipe)
    try:
        marker = read_marker(uri)
    except ObjectNotFoundError:
        return None
    return _reference(uri, marker)


def open_artifact(uri: str, stage: str) -> ArtifactRef:
    """Return the artifact at a URI.

    Raises:
        ArtifactError: It is not complete, of another stage, or of an unknown version.
    """
    try:
        marker = read_marker(uri)
    except ObjectNotFoundError:
        raise ArtifactError(
            f"{uri}: no complete artifact (no {MARKER}); run the stage {stage!r} first"
        ) from None
    if marker.recipe.stage != stage:
        raise ArtifactError(f"{uri}: made by the stage {marker.recipe.stage!r}, expected {stage!r}")
    return _reference(uri, marker)


def read_marker(uri: str) -> Marker:
    """Read an artifact's marker.

    Raises:
        ObjectNotFoundError: There is none.
        ArtifactError: It is damaged or of an unknown version.
    """
    text = storage.read_bytes(storage.join(uri, MARKER))
    try:
        values = json.loads(text)
        version = values.get("marker_version")
        if version != MARKER_VERSION:
            raise ArtifactError(
                f"{uri}: marker version {version!r} is unknown to this release, which reads "
                f"{MARKER_VERSION}; see docs/schemas.md"
            )
        return Marker.model_validate(values)
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f"{uri}: damaged {MARKER}: {error}") from None


def publish(
    root: str,
    recipe: Recipe,
    files: Mapping[str, Path | bytes],
    *,
    summary: Mapping[str, Any] | None = None,
    digest: str | None = None,
) -> ArtifactRef:
    """Write an artifact's files, then its marker.

    Args:
        root: Root URI.
        recipe: What determines the artifact; names its folder.
        files: Content by relative name: bytes, or a local file to upload.
        summary: Figures for people, kept in the marker (plain JSON values, no times).
        digest: Hash of what matters to readers; default is the hash of all files.

    Returns:
        The published artifact; the one that is there already, if another run was first.
    """
    existing = find(root, recipe)
    if existing is not None:
        return existing
    uri = artifact_uri(root, recipe)
    entries = {name: _write_file(storage.join(uri, name), files[name]) for name in sorted(files)}
    marker = Marker(
        recipe=recipe,
        digest=digest or fingerprint_of({name: entry.sha256 for name, entry in entries.items()}),
        files=entries,
        summary=dict(summary or {}),
    )
    text = json.dumps(marker.model_dump(mode="json"), indent=1, sort_keys=True)
    storage.write_bytes(storage.join(uri, MARKER), text.encode())
    return _reference(uri, marker)


def _write_file(uri: str, content: Path | bytes) -> FileEntry:
    if isinstance(content, bytes):
        storage.write_bytes(uri, content)
        return FileEntry(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    storage.upload(content, uri)
    return FileEntry(size_bytes=content.stat().st_size, sha256=storage.sha256_of_file(content))


def _reference(uri: str, marker: Marker) -> ArtifactRef:
    return ArtifactRef(
        stage=marker.recipe.stage,
        uri=uri,
        fingerprint=marker.recipe.fingerprint,
        digest=marker.digest,
    )

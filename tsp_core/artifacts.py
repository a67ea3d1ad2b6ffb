"""Published artifacts: named by what determines them, visible only when complete.

An artifact is a folder `ROOT/STAGE/FINGERPRINT/`. Its fingerprint is the hash of a `Recipe`: the
stage, the version of its code's output, the configuration that matters and the digests of its
inputs. The marker `artifact.json`, written last, lists every file with size and SHA-256; readers
trust only the marker. The digest of an artifact is the hash of what is in it, so a stage that ran
again and came to the same result leaves what follows it fresh.

Nothing published is ever replaced: files and markers are made only where none is. Two runs that
publish the same artifact at the same time write the same bytes, as a rule, and share them. Where
they do not (sums on a GPU differ in the last digits), whoever finds a file of another content puts
its own into a folder of their own inside, and the first marker decides which of the two counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tsp_core import storage
from tsp_core.errors import ArtifactError, ObjectNotFoundError

MARKER = "artifact.json"
MARKER_VERSION = 2
_READABLE_VERSIONS = (1, 2)
_READINGS = 3  # damage on the way is gone at another reading


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
    """Content of `artifact.json`.

    Attributes:
        marker_version: Of this record.
        recipe: What determines the artifact.
        digest: Hash of what matters to readers.
        files: Every file by its name below the folder.
        summary: Figures for people.
        folder: Where the files lie, below the artifact's own folder; empty as a rule.
        shards: Folder of the shards that the artifact was merged from, below the root.
        checksum: Hash of all the rest; empty in version 1.
    """

    marker_version: int = MARKER_VERSION
    recipe: Recipe
    digest: str
    files: dict[str, FileEntry]
    summary: dict[str, Any] = Field(default_factory=dict)
    folder: str = ""
    shards: str | None = None
    checksum: str = ""

    def text(self) -> bytes:
        """The content of the file, with the checksum of all the rest."""
        values = self.model_dump(mode="json") | {"checksum": self._true_checksum()}
        return json.dumps(values, indent=1, sort_keys=True).encode()

    def is_whole(self) -> bool:
        """Whether the checksum holds; version 1 had none."""
        return self.marker_version == 1 or self.checksum == self._true_checksum()

    def _true_checksum(self) -> str:
        return fingerprint_of(self.model_dump(mode="json", exclude={"checksum"}))


def fingerprint_of(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def artifact_uri(root: str, recipe: Recipe) -> str:
    """Where the artifact of a recipe is."""
    return storage.join(root, recipe.stage, recipe.fingerprint)


def below(root: str, uri: str) -> str:
    """The name of something below a root: `gvf/0123456789abcdef/gvf.h5`.

    Protocols are not compared, as a store has several: what is below `s3a://` is listed as `s3://`.
    What is not below the root is returned as it is.
    """
    path, folder = (item.split("://", 1)[-1].strip("/") for item in (uri, root))
    if folder and path != folder and not path.startswith(f"{folder}/"):
        return uri
    return path.removeprefix(folder).strip("/")


def shard_folder(stage: str, work_fingerprint: str) -> str:
    """Where the shards of a work are, below the root."""
    return f"shards/{stage}/{work_fingerprint}"


def shard_uri(root: str, stage: str, work_fingerprint: str, key: str) -> str:
    """Where a shard of per-video results is; `key` is a hash of what is in it."""
    return storage.join(root, shard_folder(stage, work_fingerprint), f"{key}.parquet")


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
    """Read an artifact's marker; one that was damaged on the way is read again.

    Raises:
        ObjectNotFoundError: There is none.
        ArtifactError: It is damaged or of an unknown version.
    """
    for _ in range(_READINGS - 1):
        with contextlib.suppress(_DamagedError):
            return _read_marker(uri)
    return _read_marker(uri)


def read_file(artifact: ArtifactRef, name: str) -> bytes:
    """Read a whole file of an artifact and make sure that it is what the marker says.

    Raises:
        ArtifactError: The artifact has no such file, or another content.
    """
    entry = read_marker(artifact.uri).files.get(name)
    if entry is None:
        raise ArtifactError(f"{artifact.uri}: has no file {name!r}; run the stage again")
    for _ in range(_READINGS):
        content = storage.read_bytes(artifact.file(name))
        if storage.size_and_sha256(content) == (entry.size_bytes, entry.sha256):
            return content
    raise ArtifactError(
        f"{artifact.file(name)}: is not what {MARKER} says (SHA-256 {entry.sha256}); delete the "
        f"artifact and run the stage {artifact.stage!r} again"
    )


def publish(
    root: str,
    recipe: Recipe,
    files: Mapping[str, Path | bytes],
    *,
    summary: Mapping[str, Any] | None = None,
    digest: str | None = None,
    shards: str | None = None,
) -> ArtifactRef:
    """Write an artifact's files, then its marker.

    Args:
        root: Root URI.
        recipe: What determines the artifact; names its folder.
        files: Content by relative name: bytes, or a local file to upload.
        summary: Figures for people, kept in the marker (plain JSON values, no times).
        digest: Hash of what matters to readers; default is the hash of all files.
        shards: Folder below the root of the shards that it was merged from.

    Returns:
        The published artifact; the one that is there already, if another run was first.
    """
    existing = find(root, recipe)
    if existing is not None:
        return existing
    uri = artifact_uri(root, recipe)
    entries = {name: _entry(files[name]) for name in sorted(files)}
    content = fingerprint_of({name: entry.sha256 for name, entry in entries.items()})
    marker = Marker(
        recipe=recipe,
        digest=digest or content,
        files=entries,
        summary=dict(summary or {}),
        shards=shards,
    )
    if not _write_files(uri, files):
        aside = storage.join(uri, content)
        if not _write_files(aside, files):
            raise ArtifactError(f"{aside}: holds other files than its name says; delete it")
        storage.write_new(storage.join(aside, MARKER), marker.text())
        marker = marker.model_copy(update={"folder": content})
    storage.write_new(storage.join(uri, MARKER), marker.text())
    return _reference(uri, read_marker(uri))


def _write_files(uri: str, files: Mapping[str, Path | bytes]) -> bool:
    """Write files below a URI; False as soon as one is there with another content."""
    return all(storage.write_new(storage.join(uri, name), files[name]) for name in sorted(files))


def _entry(content: Path | bytes) -> FileEntry:
    size_bytes, sha256 = storage.size_and_sha256(content)
    return FileEntry(size_bytes=size_bytes, sha256=sha256)


def _reference(uri: str, marker: Marker) -> ArtifactRef:
    return ArtifactRef(
        stage=marker.recipe.stage,
        uri=storage.join(uri, marker.folder) if marker.folder else uri,
        fingerprint=marker.recipe.fingerprint,
        digest=marker.digest,
    )


class _DamagedError(ArtifactError):
    """A marker is not what was written."""


def _read_marker(uri: str) -> Marker:
    text = storage.read_bytes(storage.join(uri, MARKER))
    try:
        values = json.loads(text)
        version = values.get("marker_version")
        if version not in _READABLE_VERSIONS:
            raise ArtifactError(
                f"{uri}: marker version {version!r} is unknown to this release, which reads "
                f"{' and '.join(map(str, _READABLE_VERSIONS))}; see docs/schemas.md"
            )
        marker = Marker.model_validate(values)
    except (ValueError, AttributeError) as error:
        raise _DamagedError(f"{uri}: damaged {MARKER}: {error}") from None
    if not marker.is_whole():
        raise _DamagedError(f"{uri}: damaged {MARKER}: it does not match its checksum")
    return marker

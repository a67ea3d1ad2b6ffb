"""Notes of what is being worked on: `ROOT/underway/STAGE-FINGERPRINT.json`.

A stage that begins to work says so in the store and names everything that its run uses; it takes
the note away when it is done. A run that failed or was killed leaves its notes, for it is going to
be continued. `tsp prune` keeps what a note names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tsp_core import artifacts, storage
from tsp_core.artifacts import Frozen
from tsp_core.config import Config
from tsp_core.errors import ArtifactError
from tsp_core.stages.base import Inputs, Plan
from tsp_core.video import proxy_files

NOTE_VERSION = 1
FOLDER = "underway"


class Note(Frozen):
    """A stage that has begun and is not done.

    Attributes:
        note_version: Of this record.
        name: The dataset.
        stage: The stage.
        uses: Folders below the root that must stay: `STAGE/FINGERPRINT`, `shards/STAGE/...`,
            `proxies/SETTINGS`.
    """

    note_version: int = NOTE_VERSION
    name: str
    stage: str
    uses: tuple[str, ...]


@contextmanager
def noted(config: Config, plan: Plan, published: Inputs) -> Iterator[None]:
    """Keep a note in the store while a stage works; it stays when the work fails.

    Args:
        config: The configuration.
        plan: What the stage is going to do.
        published: The artifacts of all stages before it.
    """
    recipe = plan.recipe
    uses = [f"{ref.stage}/{ref.fingerprint}" for ref in published.values()]
    uses += [f"{recipe.stage}/{recipe.fingerprint}", f"training/{recipe.fingerprint}"]
    shards = {uri.rsplit("/", 1)[0] for uri in [*plan.done, *(item.uri for item in plan.shards)]}
    uses += [artifacts.below(config.root_uri, uri) for uri in sorted(shards)]
    if "proxies" in recipe.config:
        uses.append(f"{proxy_files.FOLDER}/{recipe.config['proxies']}")
    note = Note(name=config.name, stage=recipe.stage, uses=tuple(uses))
    name = f"{recipe.stage}-{recipe.fingerprint}.json"
    uri = storage.join(config.root_uri, FOLDER, name)
    storage.write_bytes(uri, note.model_dump_json(indent=1).encode())
    yield
    storage.delete(uri)


def read_note(uri: str) -> Note:
    """Read a note.

    Raises:
        ArtifactError: It is damaged or of an unknown version.
    """
    try:
        values = json.loads(storage.read_bytes(uri))
        version = values.get("note_version")
        if version != NOTE_VERSION:
            raise ArtifactError(
                f"{uri}: note version {version!r} is unknown to this release, which reads "
                f"{NOTE_VERSION}; see docs/schemas.md"
            )
        return Note.model_validate(values)
    except (ValueError, AttributeError) as error:
        raise ArtifactError(f"{uri}: damaged note ({error}); delete it if no run goes on") from None

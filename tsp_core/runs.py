"""The record of a dataset's current artifacts: `ROOT/runs/NAME.json`.

It says which artifact of each stage the last run used, what determined it, and how long making it
took. `tsp status` compares it with what the configuration asks for now, and whatever no record
names may be pruned. Beside it lies `NAME.report.html`, the page of the current evaluation with
these times: artifacts hold no clock, so that equal inputs give equal bytes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping

from tsp_core import artifacts, storage
from tsp_core.artifacts import ArtifactRef, FileEntry, Frozen, Recipe
from tsp_core.config import STAGE_NAMES, Config
from tsp_core.errors import ArtifactError, ObjectNotFoundError
from tsp_core.pipeline import INPUTS, is_needed
from tsp_core.stages.base import StageReport

RECORD_VERSION = 4
_READABLE_VERSIONS = (1, 2, 3, 4)  # 1 has no `seconds`, 2 no `uses`, 3 no `sources`
_logger = logging.getLogger(__name__)


class StageRecord(Frozen):
    """The current artifact of one stage.

    Attributes:
        artifact: The artifact.
        recipe: Its recipe.
        seconds: How long making it took, if known.
        sources: The artifacts that it was made from, as `STAGE/FINGERPRINT`; other runs of earlier
            stages may be current by now.
    """

    artifact: ArtifactRef
    recipe: Recipe
    seconds: float | None = None
    sources: tuple[str, ...] = ()


class RunRecord(Frozen):
    """The current artifacts of one dataset, by stage, and those that its configuration names."""

    record_version: int = RECORD_VERSION
    name: str
    stages: dict[str, StageRecord]
    uses: tuple[str, ...] = ()


def record_uri(config: Config) -> str:
    """Where the record of a configuration's dataset is."""
    return storage.join(config.root_uri, "runs", f"{config.name}.json")


def page_uri(config: Config) -> str:
    """Where the report of a configuration's dataset is, with the times of the stages."""
    return storage.join(config.root_uri, "runs", f"{config.name}.report.html")


def read_record(config: Config) -> RunRecord:
    """Read the record; it is empty before the first run.

    Raises:
        ArtifactError: It is damaged or of an unknown version.
    """
    try:
        return _read(record_uri(config))
    except ObjectNotFoundError:
        return RunRecord(name=config.name, stages={})


def read_records(root: str) -> list[RunRecord]:
    """Read the records of all datasets of a root.

    Raises:
        ArtifactError: One is damaged or of an unknown version.
    """
    found = storage.list_objects(storage.join(root, "runs"))
    return [_read(item.uri) for item in found if item.uri.endswith(".json")]


def artifacts_named(config: Config) -> tuple[str, ...]:
    """The artifacts of the root whose files a configuration names: `pretrain/0123456789abcdef`."""
    named = (config.encoder.weights, config.export.checkpoint, config.gvf.file)
    found = []
    for uri in named:
        if uri is None or (name := artifacts.below(config.root_uri, uri)) == uri:
            continue
        stage, *rest = name.split("/")
        if stage in STAGE_NAMES and rest:
            found.append(f"{stage}/{rest[0]}")
    return tuple(dict.fromkeys(found))


class _NewerRecordError(ArtifactError):
    """A record of a later release, which knows what this one does not."""


def _read(uri: str) -> RunRecord:
    text = storage.read_bytes(uri)
    try:
        values = json.loads(text)
        version = values.get("record_version")
        if type(version) is int and version > RECORD_VERSION:
            raise _NewerRecordError(
                f"{uri}: record version {version} is of a newer release and unknown to this one, "
                f"which reads {RECORD_VERSION}; update this release, or, to go on with it, delete "
                "the record: the next run writes it anew"
            )
        if version not in _READABLE_VERSIONS:
            raise ArtifactError(
                f"{uri}: record version {version!r} is unknown to this release, which reads "
                f"{RECORD_VERSION}; delete it, the next run writes it anew"
            )
        return RunRecord.model_validate(values)
    except (ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{uri}: damaged record ({error}); delete it, the next run writes it anew"
        ) from None


def update_record(
    config: Config,
    done: Mapping[str, ArtifactRef],
    *,
    seconds: Mapping[str, float | None] | None = None,
) -> RunRecord:
    """Write the artifacts of the stages that were run, and the page; entries of others stay.

    Entries of stages that the configuration no longer uses are dropped. A record of a newer release
    is left as it is, and so is its page, with a warning: what it says would be lost.

    Args:
        config: The configuration.
        done: Artifacts by stage; each is made from those of earlier stages among them, or else of
            the record.
        seconds: How long making them took; those that were reused keep the time that is recorded.

    Returns:
        The record, whether it was written or not.
    """
    recorded = _recorded(config)
    stages = dict(recorded or {})
    for stage, artifact in sorted(done.items(), key=lambda item: STAGE_NAMES.index(item[0])):
        took = (seconds or {}).get(stage)
        if took is None and stage in stages and stages[stage].artifact == artifact:
            took = stages[stage].seconds
        recipe = artifacts.read_marker(artifact.uri).recipe
        made_from = (stages[name].artifact for name in INPUTS[stage] if name in stages)
        stages[stage] = StageRecord(
            artifact=artifact,
            recipe=recipe,
            seconds=took,
            sources=tuple(f"{source.stage}/{source.fingerprint}" for source in made_from),
        )
    kept = {name: stages[name] for name in STAGE_NAMES if name in stages}
    record = RunRecord(
        name=config.name,
        stages={name: entry for name, entry in kept.items() if is_needed(config, name)},
        uses=artifacts_named(config),
    )
    if recorded is not None:
        text = json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True)
        storage.write_bytes(record_uri(config), text.encode())
        _write_page(config, record)
    return record


def _recorded(config: Config) -> Mapping[str, StageRecord] | None:
    """What the record says; None, with a warning, where it is a newer release's."""
    try:
        return read_record(config).stages
    except _NewerRecordError as error:
        _logger.warning("this run is not recorded: %s", error)
        return None
    except ArtifactError:
        return {}  # a damaged record is replaced: it is only a memory


def seconds_of(reports: Iterable[StageReport]) -> dict[str, float | None]:
    """How long each stage of a run took."""
    return {report.stage: report.seconds for report in reports}


def _write_page(config: Config, record: RunRecord) -> None:
    """Write the current report with the times of the stages, where there is a report."""
    evaluated = record.stages.get("evaluate")
    if evaluated is None or "report.html" not in _files(evaluated.artifact):
        return
    from tsp_core.evaluation.report import with_run_section
    from tsp_core.evaluation.sections.timings import timings_section

    page = artifacts.read_file(evaluated.artifact, "report.html").decode()
    seconds = {name: entry.seconds for name, entry in record.stages.items()}
    text = with_run_section(page, timings_section(seconds))
    storage.write_bytes(page_uri(config), text.encode())


def _files(artifact: ArtifactRef) -> Mapping[str, FileEntry]:
    return artifacts.read_marker(artifact.uri).files

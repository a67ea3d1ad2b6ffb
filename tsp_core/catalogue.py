"""A catalogue of datasets: all configurations (YAML) below a folder or prefix, on any store.

Datasets of one catalogue may share a root, and with it the weights and whatever they have in
common; what they must not share is a name, because the record of a dataset's current artifacts
(`ROOT/runs/NAME.json`) and all that the UI shows of it go by the name.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tsp_core import storage
from tsp_core.artifacts import fingerprint_of
from tsp_core.config import STAGE_NAMES, Config, StageName
from tsp_core.config.io import load_config
from tsp_core.errors import ConfigError
from tsp_core.pipeline import looking_up
from tsp_core.status import StageStatus, status

_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset of the catalogue: its configuration, or why that cannot be used.

    Attributes:
        uri: The YAML file.
        config: The configuration; None when it cannot be read.
        problem: What is wrong, for people; empty when nothing is.
    """

    uri: str
    config: Config | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """The dataset's name; that of the file when it cannot be read."""
        if self.config is not None:
            return self.config.name
        return posixpath.basename(self.uri).rsplit(".", 1)[0]


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a run of a dataset would do now.

    Attributes:
        to_do: The stages that are not up to date, in order.
        fingerprint: Changes with the configuration and with what is to be made first: two runs
            with the same fingerprint would do the same.
    """

    to_do: tuple[StageStatus, ...]
    fingerprint: str

    @property
    def news(self) -> str:
        """What is new, in one line; empty when nothing is."""
        if not self.to_do:
            return ""
        first, *others = self.to_do
        more = f"; then {', '.join(entry.stage for entry in others)}" if others else ""
        return f"{first.stage}: {first.reason}{more}"


def read_catalogue(datasets: str) -> list[Dataset]:
    """Read the configurations of a catalogue; what is wrong with one does not hide the others.

    Args:
        datasets: A folder or prefix, whose *.yaml and *.yml are taken (not those of folders
            below); a glob for other layouts (`s3://bucket/sets/*/config.yaml`); or one file.

    Raises:
        ConfigError: There is no configuration at all.
        StorageUnavailableError: The store does not answer now.
    """
    uris = _list(datasets)
    if not uris:
        raise ConfigError(
            f"datasets: {datasets!r}: no configuration (*.yaml, *.yml) there; write one file per "
            "dataset below it, or give a glob such as 's3://bucket/sets/*/config.yaml'"
        )
    read = [_read(uri) for uri in uris]
    return _with_names_apart(read)


def select(catalogue: Sequence[Dataset], only: str) -> list[Dataset]:
    """Pick the datasets of a name, or that of a configuration's URI.

    Raises:
        ConfigError: There is none.
    """
    place = _place(only)
    found = [item for item in catalogue if only == item.name or place == _place(item.uri)]
    if not found:
        names = ", ".join(sorted({item.name for item in catalogue}))
        raise ConfigError(f"only: {only!r}: not in the catalogue, which has {names}")
    return found


def by_endpoint(catalogue: Iterable[Dataset]) -> list[list[Dataset]]:
    """Put the datasets of each S3 endpoint together, for they can be looked at side by side.

    The endpoint is a setting of the whole process; of datasets without one of their own, it is that
    of the environment.
    """
    groups: dict[str | None, list[Dataset]] = defaultdict(list)
    for item in catalogue:
        groups[None if item.config is None else item.config.runtime.endpoint_url].append(item)
    return list(groups.values())


def look_at(config: Config, through: StageName) -> Outlook:
    """Find out what a run up to and including the stage `through` would do; nothing is computed.

    `pretrain.retrain: always` trains anew in every run; it is no reason for one. From here on this
    process's S3 requests go to the dataset's endpoint, where it has one (see `by_endpoint`).

    Raises:
        TspError: As planning a stage raises it.
    """
    storage.use_endpoint(config.runtime.endpoint_url)
    wanted = STAGE_NAMES[: STAGE_NAMES.index(through) + 1]
    to_do = tuple(
        entry
        for entry in status(looking_up(config))
        if entry.stage in wanted and entry.state not in ("done", "not used")
    )
    first = [to_do[0].stage, to_do[0].fingerprint] if to_do else []
    return Outlook(
        to_do=to_do,
        fingerprint=fingerprint_of([config.model_dump(mode="json"), through, first]),
    )


def _list(datasets: str) -> list[str]:
    if datasets.endswith(_ENDINGS) and not _is_glob(datasets):
        return [storage.absolute(datasets)]
    pattern = datasets if _is_glob(datasets) else storage.join(datasets, "*.y*ml")
    return [item.uri for item in storage.glob_objects(pattern) if item.uri.endswith(_ENDINGS)]


def _place(uri: str) -> str:
    """One spelling of the ways to write a place."""
    return storage.absolute(str(storage.local_path(uri))) if storage.is_local(uri) else uri


def _is_glob(uri: str) -> bool:
    return any(sign in uri for sign in "*?[")


def _read(uri: str) -> Dataset:
    try:
        with storage.endpoint_restored():  # the next configuration is read where this one was
            return Dataset(uri=uri, config=load_config(uri))
    except ConfigError as error:
        return Dataset(uri=uri, problem=str(error))


def _with_names_apart(catalogue: Iterable[Dataset]) -> list[Dataset]:
    """Refuse all datasets of one name: none of them is more right than the others."""
    by_key: dict[str, list[Dataset]] = defaultdict(list)
    for item in catalogue:
        by_key[item.uri if item.config is None else item.config.key].append(item)
    return [
        item if len(group) == 1 else replace(item, problem=_same_name(item, group))
        for group in by_key.values()
        for item in group
    ]


def _same_name(item: Dataset, group: Sequence[Dataset]) -> str:
    others = ", ".join(other.uri for other in group if other is not item)
    return (
        f"{item.uri}: name: {item.name!r}: also that of {others}, and their records and reports "
        "would overwrite each other; give each dataset of a catalogue a name of its own (names "
        "that differ in case or punctuation alone count as the same)"
    )

"""Reads a configuration from YAML at any URI, with overrides and clear errors.

`${NAME}` and `${NAME:-default}` in the file are replaced by environment variables. Relative paths
in the file are taken from the file's folder, those of overrides from the working directory.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tsp_core import storage
from tsp_core.config import Config
from tsp_core.config.base import section_of
from tsp_core.config.explain import explain
from tsp_core.config.yaml_text import expand_variables, parse_yaml
from tsp_core.credentials import FIX, embedded_credentials
from tsp_core.errors import ConfigError, ObjectNotFoundError, StorageError
from tsp_core.storage.opening import own_endpoint

_MAX_NODES = 200_000


def load_config(
    uri: str,
    *,
    overrides: Mapping[str, Mapping[str, Any] | Any] | None = None,
    assignments: Sequence[str] = (),
) -> Config:
    """Read and validate a configuration.

    From here on S3 requests of this process go to its `runtime.endpoint_url`, or, where it names
    none, to that of the environment, which the file itself is read from.

    Args:
        uri: Path or URI of the YAML file.
        overrides: Sections (or top-level values) whose given keys replace those of the file.
        assignments: `key=value` with dotted keys, as of `tsp run --set`; values are YAML.

    Raises:
        ConfigError: Naming the file, the key, the value and the fix.
    """
    _refuse_credentials(uri, source=storage.redact(uri), key="the configuration's URI")
    values = _read_yaml(uri)
    _resolve_paths(values, Config, base=_folder(uri))
    extra: dict[str, Any] = {}
    for key, value in (overrides or {}).items():
        _merge(extra, {key: value})
    _merge(extra, parse_assignments(assignments))
    _resolve_paths(extra, Config, base=str(Path.cwd()))
    _merge(values, extra)
    config = parse_config(values, source=uri)
    storage.use_endpoint(config.runtime.endpoint_url)
    return config


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `section.key=value` texts into nested values; later ones win.

    Raises:
        ConfigError: A text is no assignment, or its value is not YAML.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        _merge(values, _parse_assignment(assignment))
    return values


def parse_config(values: Mapping[str, Any], *, source: str) -> Config:
    """Validate plain values as a configuration.

    Raises:
        ConfigError: Naming the source, each wrong key, its value and the fix.
    """
    _refuse_credentials(values, source=source, key="")
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, source)) from None
    if not config.root:
        raise ConfigError(
            f"{source}: root: missing; set it to the folder or URI where everything is written"
        )
    _check_study(config, source)
    return config


def changed_config(
    config: Config, changes: Mapping[str, Mapping[str, Any]], *, source: str
) -> Config:
    """The configuration of one run of a study: keys replaced, and no study of its own.

    Args:
        config: Of the study.
        changes: Keys and values by section; paths are absolute.
        source: What errors name.

    Raises:
        ConfigError: Naming the source, each wrong key, its value and the fix.
    """
    values = config.model_dump(exclude={"study"})
    _merge(values, changes)
    return parse_config(values, source=source)


def _check_study(config: Config, source: str) -> None:
    """Find out at once whether a variant is wrong, not hours later when it is its turn."""
    study = config.study
    for name, changes in study.variants.items():
        changed_config(config, changes, source=f"{source}: study.variants.{name}")
    if study.initial is not None:
        changed_config(config, study.initial, source=f"{source}: study.initial")


def _read_yaml(uri: str) -> dict[str, Any]:
    try:
        with own_endpoint():
            text = storage.read_bytes(uri).decode("utf-8")
    except ObjectNotFoundError:
        raise ConfigError(
            f"{uri}: cannot read the configuration: no such file or object{_similar_file(uri)}"
        ) from None
    except StorageError as error:
        raise ConfigError(f"{uri}: cannot read the configuration: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{uri}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    values = parse_yaml(expand_variables(text, uri), uri)
    if _num_nodes(values, limit=_MAX_NODES) >= _MAX_NODES:
        raise ConfigError(
            f"{uri}: more than {_MAX_NODES} values, or an anchor that holds itself; write the "
            "configuration without such anchors, long lists of videos into a .csv list"
        )
    if values is None:
        values = {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(
            f"{uri}: expected a mapping of sections (name, root, ingest, ...), "
            f"got {type(values).__name__}"
        )
    _fill_empty_sections(values, Config)
    return values


def _fill_empty_sections(values: dict[str, Any], model: type[BaseModel]) -> None:
    """A section whose keys are all commented out is null in YAML, and means its defaults."""
    for key, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is None or key not in values:
            continue
        if values[key] is None:
            values[key] = {}
        elif isinstance(values[key], dict):
            _fill_empty_sections(values[key], section)
            if key == "study":
                _fill_empty_changes(values[key])


def _fill_empty_changes(study: dict[str, Any]) -> None:
    variants = study.get("variants")
    if isinstance(variants, dict):  # a variant without keys changes nothing
        variants.update({name: {} for name, changes in variants.items() if changes is None})
    for changes in _changes_of(study):
        _fill_empty_sections(changes, Config)


def _similar_file(uri: str) -> str:
    """Suggest a YAML file of the same folder whose name is close."""
    if not storage.is_local(uri):
        return ""
    similar = storage.similar_path(storage.local_path(uri), "*.y*ml")
    return f"; did you mean {str(similar)!r}?" if similar else ""


def _refuse_credentials(value: Any, *, source: str, key: str) -> None:
    """Refuse passwords and signatures in URIs, wherever they stand.

    Raises:
        ConfigError: Naming the key, and not the value.
    """
    if isinstance(value, str) and (what := embedded_credentials(value)):
        raise ConfigError(f"{source}: {key}: {storage.redact(value)!r} carries {what}; {FIX}")
    if isinstance(value, Mapping):
        for name, item in value.items():
            inner = f"{key}.{name}" if key else str(name)
            _refuse_credentials(item, source=source, key=inner)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_credentials(item, source=source, key=key)


def _num_nodes(value: Any, *, limit: int) -> int:
    """Count values, shared ones as often as they appear, up to a limit: aliases can multiply."""
    count, waiting = 0, [value]
    while waiting and count < limit:
        count += 1
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return count


def _parse_assignment(assignment: str) -> dict[str, Any]:
    key, equals, text = assignment.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        shown = storage.redact(assignment)
        raise ConfigError(f"--set {shown!r}: expected key=value, as in export.stride=8")
    value: Any = parse_yaml(text, f"--set {storage.redact(assignment)!r}")
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True)
        if value is not None and isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        elif isinstance(value, Mapping):
            base[key] = {}
            _merge(base[key], value)
        else:
            base[key] = value


def _folder(uri: str) -> str:
    if "://" in uri:
        return posixpath.dirname(uri)
    return str(Path(uri).absolute().parent)


def _resolve_paths(values: dict[str, Any], model: type[BaseModel], *, base: str) -> None:
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is None:
            continue
        if (section := section_of(field.annotation)) is not None:
            if isinstance(value, dict):
                _resolve_paths(value, section, base=base)
                for changes in _changes_of(value) if key == "study" else ():
                    _resolve_paths(changes, Config, base=base)
        elif key == "extensions":
            values[key] = _absolute_modules(value, base)
        elif key in {"weights", "checkpoint"}:
            values[key] = _absolute_weights(value, base)
        elif isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("uri"):
            values[key] = _absolute(value, base)


def _changes_of(study: dict[str, Any]) -> list[dict[str, Any]]:
    """What the runs of a study change, as far as it is well-formed: it is not validated yet."""
    variants = study.get("variants")
    found = [study.get("initial"), *(variants.values() if isinstance(variants, dict) else ())]
    return [changes for changes in found if isinstance(changes, dict)]


def _absolute(value: Any, base: str) -> Any:
    if isinstance(value, str) and value:
        return storage.absolute(value, base=base)
    if isinstance(value, (list, tuple)):
        return [_absolute(item, base) for item in value]
    if isinstance(value, dict):
        return {key: _absolute(item, base) for key, item in value.items()}
    return value


def _absolute_modules(value: Any, base: str) -> Any:
    """Make paths of .py files absolute, leaving names of modules alone."""
    if isinstance(value, (list, tuple)):
        return [_absolute_modules(item, base) for item in value]
    return _absolute(value, base) if str(value).endswith(".py") else value


def _absolute_weights(value: Any, base: str) -> Any:
    """Make a weights file's path absolute, leaving names ('kinetics', 'random:0') alone."""
    if isinstance(value, str) and ("/" in value or value.endswith((".pth", ".pt"))):
        return _absolute(value, base)
    return value

"""From the text of a configuration to plain values: variables, YAML, errors without contents."""

from __future__ import annotations

import os
import re
from typing import Any

import yaml

from tsp_core import storage
from tsp_core.errors import ConfigError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_QUOTED_OR_COMMENT = re.compile(
    r"""(?<![^\s\[{,:])(?:"(?:\\.|[^"\\])*"|'(?:''|[^'])*')|(?<!\S)(?P<comment>\#.*)""", re.DOTALL
)
"""A quote opens where a value may begin, so an apostrophe inside a word is none."""

_MERGE = "tag:yaml.org,2002:merge"  # the key `<<`, which may appear twice and drops nothing


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML into plain values.

    Args:
        text: The YAML.
        source: What errors name.

    Raises:
        ConfigError: No YAML, or a mapping has a key twice.
    """
    try:
        loader = _Loader(text)  # reads the first characters already
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except _RepeatedKeyError as error:
        raise ConfigError(f"{source}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML: {_what_is_wrong(error)}") from None


def expand_variables(text: str, source: str) -> str:
    """Replace `${NAME}` and `${NAME:-default}` by environment variables, outside of comments.

    Raises:
        ConfigError: A variable is not set and has no default.
    """

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        value = os.environ.get(name, default)
        if value is None:
            raise ConfigError(
                f"{source}: ${{{name}}}: the environment variable {name} is not set; "
                f"set it or write ${{{name}:-default}}"
            )
        return value

    expanded = []
    for line in text.splitlines(keepends=True):
        end = _comment_start(line)
        expanded.append(_VARIABLE.sub(replace, line[:end]) + line[end:])
    return "".join(expanded)


def _comment_start(line: str) -> int:
    starts = (m.start() for m in _QUOTED_OR_COMMENT.finditer(line) if m["comment"])
    return next(starts, len(line))


class _RepeatedKeyError(Exception):
    """Says which key, and where."""


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML's readers silently keep the last.

    Keys are compared before `<<` merges others in: a key may replace a merged one.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise _RepeatedKeyError(
                    f"line {line}: the key {storage.redact(key.value)!r} appears twice (first in "
                    f"line {lines[name]}); keep one"
                )
            lines[name] = line
        return node


def _what_is_wrong(error: Exception) -> str:
    """Problem and place, without the text around, which may hold what a variable stood for."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return storage.redact(str(error))

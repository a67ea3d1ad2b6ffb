"""Names of encoders and formats, the project's own and those that extensions add.

An extension is a Python module that registers something when it is imported, with
`tsp_core.model.encoders.register_encoder`, `tsp_core.annotations.registry.register_format` or
`tsp_core.features.formats.register_format` (docs/extending.md). The key `extensions` of a
configuration, the option `--extension` and the variable TSP_EXTENSIONS name modules to import:
`package.module`, or the path of a `.py` file. Processes that are started for the work inherit the
variable, and so import the same.

Importing this module imports nothing else of the project but its errors.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from tsp_core.errors import ConfigError

VARIABLE = "TSP_EXTENSIONS"
"""Environment variable: extensions, separated as in PATH."""


class Names:
    """The known names of one kind of thing.

    Args:
        kind: What messages call it.
        builtin: The project's own names.
    """

    def __init__(self, kind: str, builtin: Iterable[str]) -> None:
        self._kind = kind
        self.builtin = tuple(builtin)
        self._added: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        return iter((*self.builtin, *self._added))

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or name in self._added

    def add(self, name: str, origin: str) -> None:
        """Take a name that an extension adds; `origin` is what registered it.

        Raises:
            ConfigError: The project or another extension has the name.
        """
        if name in self.builtin or self._added.get(name, origin) != origin:
            owner = self._added.get(name, "the project")
            raise ConfigError(f"{origin}: the {self._kind} {name!r} is {owner}'s; rename yours")
        self._added[name] = origin

    def known(self, name: str) -> str:
        """Return the name, having imported the extensions of the environment if need be.

        Raises:
            ValueError: There is no such name; the message suggests one.
        """
        if name not in self:
            load_extensions(from_environment())
        if name in self:
            return name
        close = difflib.get_close_matches(name, list(self), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(self)}"
        raise ValueError(f"there is no {self._kind} {name!r}; {hint} (more come by `extensions`)")


ENCODERS = Names("encoder", ("r2plus1d_34", "r2plus1d_18", "r3d_18", "mc3_18", "r2plus1d_tiny"))
ANNOTATION_FORMATS = Names("annotation format", ("activitynet", "thumos14", "csv", "tsp-csv"))
FEATURE_FORMATS = Names("feature format", ("h5", "npy", "pkl", "parquet"))


def load_extensions(extensions: Iterable[str]) -> None:
    """Import extensions, each once, and name them in the environment for child processes.

    Args:
        extensions: Module names, or paths of `.py` files.

    Raises:
        ConfigError: One is not there or does not import.
    """
    for extension in extensions:
        is_file = extension.endswith(".py")
        where = str(Path(extension).absolute()) if is_file else extension
        _import(where, is_file=is_file)
        inherited = from_environment()
        if where not in inherited:
            os.environ[VARIABLE] = os.pathsep.join([*inherited, where])


def from_environment() -> list[str]:
    """The extensions that TSP_EXTENSIONS names."""
    return [item for item in os.environ.get(VARIABLE, "").split(os.pathsep) if item]


def _import(where: str, *, is_file: bool) -> None:
    try:
        if is_file:
            _import_file(Path(where))
        else:
            importlib.import_module(where)
    except ConfigError:
        raise
    except Exception as error:  # an extension's own code may raise anything
        raise ConfigError(
            f"extensions: {where!r} cannot be imported ({type(error).__name__}: {error}); give the "
            "name of an installed module or the path of a .py file"
        ) from error


def _import_file(path: Path) -> ModuleType:
    name = f"tsp_extension_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise ConfigError(f"extensions: {str(path)!r}: no such file; fix the path")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module

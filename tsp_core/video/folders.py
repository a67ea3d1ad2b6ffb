"""The files below a folder on any store; on the local disk links are followed."""

from __future__ import annotations

import logging
import os
import posixpath
from collections import deque

from tsp_core import storage
from tsp_core.storage import ObjectInfo

_FOREIGN = ("@eaDir", "__MACOSX", "lost+found")
"""Folders that Synology's and Apple's programs make, whose files are named like the videos; and
what a file system keeps for itself, which root alone may read."""

_log = logging.getLogger(__name__)


def files_below(folder: str) -> list[ObjectInfo]:
    """List the files below a folder, sorted by URI, on the local disk also those below links.

    The files of a folder that several links lead to are listed once, below the folder itself
    where it is listed too. A link to a folder that holds the link is not followed, and of a folder
    that cannot be read nothing is known: a warning names it.
    """
    if not storage.is_local(folder):
        return storage.list_objects(folder)
    base = os.path.realpath(storage.local_path(folder))
    found: list[ObjectInfo] = []
    listed: set[str] = set()
    waiting = deque([folder])
    while waiting:
        place = waiting.popleft()
        _tell_unreadable(place, below=folder)
        items = storage.list_objects(place)
        real = {name: os.path.realpath(name) for name in {_parent(item) for item in items}}
        new = [item for item in items if real[_parent(item)] not in listed]
        listed.update(real.values())
        for item in new:
            if not os.path.isdir(item.uri):  # noqa: PTH112 - says no where there is no permission
                found.append(item)
            elif not is_hidden(path_below(item.uri, folder)) and _can_be_followed(item, base):
                waiting.append(item.uri)
    return sorted(found, key=lambda item: item.uri)


def _tell_unreadable(place: str, *, below: str) -> None:
    """Warn of the folders that listing passes over without a word."""

    def tell(error: OSError) -> None:
        name = str(error.filename)
        if not is_hidden(path_below(name, below)):
            text = "%s: cannot be listed (%s): the videos in it are left out; mend its permissions"
            _log.warning(text, name, error.strerror)

    for _ in os.walk(storage.local_path(place), onerror=tell):
        pass


def token_of(item: ObjectInfo) -> str | None:
    """What changes with a file: of a local link, with its target; None where it leads nowhere."""
    if not storage.is_local(item.uri) or not storage.local_path(item.uri).is_symlink():
        return item.token
    try:
        target = storage.local_path(item.uri).stat()
    except OSError:
        return None
    return f"{target.st_size}-{target.st_mtime}"


def is_broken_link(uri: str) -> bool:
    """Tell whether a URI is a local link that leads nowhere, or to itself."""
    if not storage.is_local(uri) or not storage.local_path(uri).is_symlink():
        return False
    return not os.path.exists(storage.local_path(uri))  # noqa: PTH110 - links may go in circles


def is_hidden(below: str) -> bool:
    """Tell whether a path below the listed folder is hidden, or lies in a folder of a system."""
    return any(part.startswith(".") or part in _FOREIGN for part in below.split("/"))


def path_below(uri: str, folder: str) -> str:
    """The part of a URI below a folder; all of its path where it lies elsewhere."""
    return bare_path(uri).removeprefix(f"{bare_path(folder)}/")


def bare_path(uri: str) -> str:
    """A URI without its protocol and outer slashes."""
    return uri.split("://", 1)[-1].strip("/")


def _parent(item: ObjectInfo) -> str:
    return posixpath.dirname(item.uri)


def _can_be_followed(item: ObjectInfo, base: str) -> bool:
    """Following a link to a folder around it would list everything again, without end."""
    target = os.path.realpath(item.uri)
    for inner in (base, os.path.realpath(_parent(item))):
        if inner == target or inner.startswith(f"{target.rstrip('/')}/"):
            _log.warning("%s: a link to a folder that holds it is not followed", item.uri)
            return False
    return True

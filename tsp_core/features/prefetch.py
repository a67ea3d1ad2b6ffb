"""Runs an iterator in a thread of its own, so that decoding and the model work at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
_POLL_SECONDS = 0.1


class Prefetched(Generic[Item]):
    """Iterates over what a thread takes from another iterator, a bounded number of items ahead.

    A context manager: leaving it stops the thread and closes the source. An error of the source
    is raised where the consumer reaches it.

    Args:
        source: What to take from; used by the thread alone.
        size: Items that may wait.
    """

    def __init__(self, source: Iterator[Item], *, size: int) -> None:
        self._source = source
        self._queue: queue.Queue[Item | BaseException | None] = queue.Queue(maxsize=size)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="tsp-decode", daemon=True)

    def __enter__(self) -> Iterator[Item]:
        self._thread.start()
        return self._items()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _items(self) -> Iterator[Item]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _produce(self) -> None:
        end: BaseException | None = None
        try:
            for item in self._source:
                if not self._put(item):
                    break
        except BaseException as error:
            end = error
        finally:
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
        self._put(end)

    def _put(self, item: Item | BaseException | None) -> bool:
        """Wait for room; tell whether the consumer still wants the item."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

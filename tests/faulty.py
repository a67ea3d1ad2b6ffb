"""An HTTP proxy in front of a real server that fails in the ways that stores and networks do."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal[
    "hang",  # no answer at all
    "500",  # InternalError
    "503",  # SlowDown
    "expired",  # ExpiredToken
    "reset",  # the connection is reset in the middle of the body
    "truncated",  # the connection is closed in the middle of the body
    "shortened",  # half of the body, and headers that say that this is all; no checksums
    "corrupted",  # one byte of the body is another one
    "unsigned",  # the same, from a store that sends no checksums
    "lost",  # the request is done, and the connection is reset without an answer
    "stale",  # the first answer that this request ever got
]
_ERRORS: dict[Fault, tuple[str, str]] = {
    "500": ("500 Internal Server Error", "InternalError"),
    "503": ("503 Service Unavailable", "SlowDown"),
    "expired": ("400 Bad Request", "ExpiredToken"),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client asked: the first line's words, and the whole message."""

    method: str
    path: str
    message: bytes


@dataclass(kw_only=True)
class FaultyProxy:
    """Passes requests on to a server, and spoils those that a plan wants spoiled.

    Attributes:
        server: Host and port.
        plan: Called for each request; names a fault, or None to pass the answer on as it is.
        seen: Method, path and fault of every request.
    """

    server: tuple[str, int]
    plan: Callable[[Request], Fault | None] = lambda request: None
    seen: list[tuple[str, str, Fault | None]] = field(default_factory=list)
    url: str = ""
    _first: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def spoil(self, fault: Fault, *, times: int, pattern: str = ".*") -> None:
        """Spoil the next requests whose 'METHOD path' matches a pattern."""
        left = [times]

        def plan(request: Request) -> Fault | None:
            if left[0] and re.search(pattern, f"{request.method} {request.path}"):
                left[0] -= 1
                return fault
            return None

        self.plan = plan

    def spoil_at_random(self, seed: int, share: float, faults: tuple[Fault, ...]) -> None:
        """Spoil a share of all requests."""
        rng = random.Random(seed)
        self.plan = lambda request: rng.choice(faults) if rng.random() < share else None

    def heal(self) -> None:
        self.plan = lambda request: None
        self.seen.clear()

    @property
    def faults(self) -> list[Fault]:
        """The faults that happened."""
        return [fault for _, _, fault in self.seen if fault is not None]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                request = await _read_request(reader, writer)
                fault = self.plan(request)
                self.seen.append((request.method, request.path, fault))
                await self._answer(request, fault, writer)
            with contextlib.suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()  # also when the proxy ends in the middle of an answer

    async def _answer(
        self, request: Request, fault: Fault | None, writer: asyncio.StreamWriter
    ) -> None:
        if fault == "hang":
            await asyncio.sleep(30)
            return
        if fault in _ERRORS:
            writer.write(_error(request, fault))
            await writer.drain()
            return
        answer = await self._passed_on(request)
        first = self._first.setdefault((request.method, request.path), answer)
        head, _, body = (first if fault == "stale" else answer).partition(b"\r\n\r\n")
        if fault == "lost":
            _reset(writer)
        elif fault in ("reset", "truncated"):
            writer.write(head + b"\r\n\r\n" + body[: len(body) // 2])
            await writer.drain()
            if fault == "reset":
                _reset(writer)
        else:
            writer.write(_spoiled(head, body, fault))
            await writer.drain()

    async def _passed_on(self, request: Request) -> bytes:
        reader, writer = await asyncio.open_connection(*self.server)
        writer.write(request.message)
        await writer.drain()
        answer = await reader.read(-1)
        writer.close()
        return answer


def _spoiled(head: bytes, body: bytes, fault: Fault | None) -> bytes:
    if fault == "shortened" and body:
        body = body[: len(body) // 2]
        head = re.sub(rb"(?i)content-length: \d+", b"Content-Length: %d" % len(body), head)
    elif fault in ("corrupted", "unsigned") and body:
        place = len(body) // 2
        body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    if fault in ("shortened", "unsigned"):
        head = re.sub(rb"(?i)\r\nx-amz-checksum-[^\r]*", b"", head)
    return head + b"\r\n\r\n" + body


def _error(request: Request, fault: Fault) -> bytes:
    status, code = _ERRORS[fault]
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by plan</Message></Error>"
    body = "" if request.method == "HEAD" else text
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}"
    return f"{head}\r\nConnection: close\r\n\r\n{body}".encode()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset instead of a farewell."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    if re.search(rb"(?i)\r\nexpect: 100-continue", head):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = re.sub(rb"(?i)\r\nexpect: 100-continue", b"", head)
    head = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", head)
    head = head.removesuffix(b"\r\n\r\n") + b"\r\nConnection: close\r\n\r\n"
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else b""
    assert not re.search(rb"(?i)\r\ntransfer-encoding:", head), "no chunked requests are expected"
    method, path = head.split(b" ")[:2]
    return Request(method=method.decode(), path=path.decode(), message=head + body)


@contextmanager
def faulty_proxy(server_url: str) -> Iterator[FaultyProxy]:
    """Run a proxy on a free loopback port in a thread of its own."""
    host, port = server_url.removeprefix("http://").split(":")
    proxy = FaultyProxy(server=(host, int(port)))
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.serve, "127.0.0.1", 0))
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    mine = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not mine]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(
        0
    )  # connections that were aborted close their sockets in a turn of the loop

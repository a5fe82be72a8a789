"""The HTTP side of an emulator over memory streams, or of a server that says what a test wants."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
import trio.testing
from attrs import define, field

from pool.emulator import Emulator
from pool.http import HttpClient, open_http
from pool.settings import Endpoint, PoolSettings


@define(eq=False)
class Scripted:
    """A server that reads a request and answers with fixed bytes, one answer a connection, then closes."""

    answers: list[bytes]
    requests: list[bytes] = field(factory=list, init=False)
    linger: float = 0.0  # s before it closes

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        got = b""
        while b"\r\n\r\n" not in got:
            data = await stream.receive_some()
            if not data:
                return
            got += data
        length = int((re.search(rb"content-length: (\d+)", got.lower()) or [b"", b"0"])[1])
        while len(got.partition(b"\r\n\r\n")[2]) < length:
            got += await stream.receive_some()
        self.requests.append(got)
        await stream.send_all(self.answers.pop(0))
        await trio.sleep(self.linger)
        await stream.aclose()


def answer(status: str, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """Return an answer with a body of known length."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def streaming(*events: bytes, cut: int = 0) -> bytes:
    """Return a stream of events. `cut`: the last bytes that never arrive."""
    body = b"".join(b"data: " + event + b"\n\n" for event in events)
    whole = answer("200 OK", body, "connection: close", kind="text/event-stream; charset=utf-8")
    return whole[: len(whole) - cut]


@define(eq=False)
class Wires:
    """Connects to a server over memory streams, and counts."""

    server: Emulator | Scripted
    nursery: trio.Nursery
    opened: int = field(default=0, init=False)

    async def connect(self) -> trio.abc.Stream:
        """Open one connection."""
        await trio.lowlevel.checkpoint()
        near, far = trio.testing.memory_stream_pair()
        self.opened += 1
        self.nursery.start_soon(self._serve, far)
        return near

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            await self.server.handle(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def http_client(
    server: Emulator | Scripted | Sequence[bytes],
    *,
    settings: PoolSettings | None = None,
    connections: int = 8,
    endpoint: Endpoint | None = None,
) -> AsyncIterator[tuple[HttpClient, Wires]]:
    """Open a client of this server."""
    if not isinstance(server, Emulator | Scripted):
        server = Scripted(list(server))
    endpoint = endpoint or Endpoint.emulator("http://emulator/v1")
    async with trio.open_nursery() as nursery:
        wires = Wires(server, nursery)
        async with open_http(endpoint, settings, connections=connections, transport=wires.connect) as client:
            yield client, wires
        nursery.cancel_scope.cancel()

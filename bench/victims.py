"""Who uses the gateway while it is attacked: streams at a steady pace, and neighbours that ask whether it lives.

Theory of operation
    The events of a stream come from a server with a pace of its own, at least `pace` seconds after one another,
    whatever the gateway does. So if event j came at t, event k before it was sent at t - (j - k) * pace at latest.
    The least of these bounds over all later events is when an event was due; what it came later than that is its
    delay. Thus a stall counts for every event that it held up, and the server's own lateness for none. Events that
    have not come at the end of the watch count as being late until then.

    The neighbours are an open loop: each request has its intended start, is sent on a connection of its own then,
    and is timed from there, however many before it are unanswered. One that gets no answer took `PATIENCE`.
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Sequence
from contextlib import suppress

import trio
from attrs import define, field, frozen

from bench.attacks.wire import frame, request
from pool.wire.codec import to_json

PATIENCE = 30.0  # s, for an answer
DELTA = b'"response.output_text.delta"'  # once in every event, whatever the front
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@define(eq=False)
class Stream:
    """One stream of events: when each came."""

    pace: float  # s, between two events
    came: list[float] = field(factory=list, init=False)
    lost: bool = field(default=False, init=False)  # it ended, and should not have

    def delays(self, start: float, end: float, now: float) -> list[float]:
        """Return the delay of each event that was due between these moments, in seconds; some have not come yet."""
        found: list[float] = []
        if not self.came:
            return [now - start]
        due, waits = self.came[-1], self.came[-1] + self.pace
        while waits < end:  # these have not come
            if waits >= start:
                found.append(now - waits)
            waits += self.pace
        for came in reversed(self.came):
            due = min(due, came)
            if start <= due < end:
                found.append(came - due)
            due -= self.pace
        return found


@define(eq=False)
class Neighbour:
    """Asks for a sign of life, again and again; keeps when each request was to start, and how long it took."""

    port: int
    rate: float  # a second
    tls: ssl.SSLContext | None = None
    took: list[tuple[float, float]] = field(factory=list, init=False)
    failed: list[float] = field(factory=list, init=False)
    asking: set[float] = field(factory=set, init=False)  # requests under way, by when they were to start

    async def run(self) -> None:
        """Ask until cancelled."""
        due = trio.current_time()
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep_until(due)
                nursery.start_soon(self._ask, due)
                due += 1 / self.rate

    async def _ask(self, due: float) -> None:
        good = False
        self.asking.add(due)
        with trio.move_on_after(PATIENCE), suppress(*GONE, ssl.SSLError):
            stream = await connect(self.port, self.tls)
            try:
                await stream.send_all(
                    request("/healthz", method="GET", content=None, headers="connection: close\r\n")
                )
                answer = b""
                while data := bytes(await stream.receive_some(65536)):
                    answer += data
                good = answer.startswith(b"HTTP/1.1 200")
            finally:
                await trio.aclose_forcefully(stream)
        self.asking.discard(due)
        self.took.append((due, trio.current_time() - due if good else PATIENCE))
        if not good:
            self.failed.append(due)

    def seconds(self, start: float, end: float) -> list[float]:
        """Return how long requests that were to start between these moments took, the shortest first."""
        return sorted(took for due, took in self.took if start <= due < end)

    async def caught_up(self, end: float) -> None:
        """Wait until no request that was to start before this moment is under way."""
        while any(due < end for due in self.asking):  # noqa: ASYNC110 - a benchmark may look twice
            await trio.sleep(0.05)

    def unanswered(self, start: float, end: float) -> int:
        """Return how many of those got no good answer."""
        return sum(start <= due < end for due in self.failed)


@define(eq=False)
class Lag:
    """How late our own event loop is: where it is late, the machine was too busy, whatever the gateway did."""

    late: list[tuple[float, float]] = field(factory=list, init=False)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            due = trio.current_time() + 0.01
            await trio.sleep_until(due)
            self.late.append((due, trio.current_time() - due))

    def seconds(self, start: float, end: float) -> list[float]:
        """Return how late it was between these moments, the least first."""
        return sorted(late for due, late in self.late if start <= due < end)


@frozen
class Where:
    """How victims reach the gateway."""

    port: int
    key: str = field(repr=False)
    tls: ssl.SSLContext | None = None


async def connect(port: int, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    """Open a connection."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    if tls is None:
        return stream
    return trio.SSLStream(stream, tls, server_hostname="127.0.0.1", https_compatible=True)


async def listen(where: Where, stream: Stream, *, socket: bool) -> None:
    """Take one long turn, over a WebSocket or over HTTP, and note when its events come."""
    with suppress(*GONE, ssl.SSLError):
        connection = await connect(where.port, where.tls)
        try:
            await (_ask_socket if socket else _ask_http)(connection, where.key)
            tail = b""
            while data := bytes(await connection.receive_some(65536)):
                now, text = trio.current_time(), tail + data
                stream.came += [now] * text.count(DELTA)
                tail = text[-len(DELTA) + 1 :]
        finally:
            await trio.aclose_forcefully(connection)
    stream.lost = True


async def _ask_http(connection: trio.abc.Stream, key: str) -> None:
    await connection.send_all(request("/v1/responses", key=key, content=_create(stream=True)))


async def _ask_socket(connection: trio.abc.Stream, key: str) -> None:
    nonce = base64.b64encode(os.urandom(16)).decode()
    upgrade = (
        "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
        f"sec-websocket-key: {nonce}\r\n"
    )
    await connection.send_all(request("/v1/responses", method="GET", key=key, content=None, headers=upgrade))
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = bytes(await connection.receive_some(65536))
        assert data, answer
        answer += data
    assert answer.startswith(b"HTTP/1.1 101"), answer
    await connection.send_all(frame(1, _create(type="response.create")))


def _create(**more: object) -> bytes:
    return to_json({"model": "gpt-6-astra", "input": "go on", "store": False, **more})


def worst(values: Sequence[float], share: float = 0.99) -> float:
    """Return the value below which this share of them lies, in seconds; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

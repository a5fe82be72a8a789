"""A scripted server for the pool's tests: real WebSocket frames over memory streams, on trio's clock.

A `FakeServer` answers every create at once, unless told otherwise: with `manual` the test itself reads what came
(`session.next()`) and says what the server says.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from attrs import define, field
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, wrap_server_stream
from wsproto.events import Event, Pong

from pool import Endpoint, Lanes, Lease, Pool, PoolSettings, open_pool
from pool.dial import Dialer
from pool.wire.codec import from_json, to_json
from pool.wire.cycle import Finished
from pool.wire.events import ResponseCreate

LIMIT = {
    "type": "error",
    "status": 400,
    "error": {
        "type": "invalid_request_error",
        "code": "websocket_connection_limit_reached",
        "message": "Responses websocket connection limit reached (60 minutes). "
        "Create a new websocket connection to continue.",
    },
}
JSON = dict[str, Any]


class Valve(trio.abc.Stream):
    """The client's end of a connection; a test can stop what it sends halfway, or make the server deaf to it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.stuck = False  # the next send leaves by half, then waits
        self.dawdling = False  # the next send leaves whole, but takes its time to say so
        self.half_sent = trio.Event()
        self.released = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or begin to."""
        if self.stuck:
            self.stuck = False
            data = bytes(data)
            await self.stream.send_all(data[: len(data) // 2])
            data = data[len(data) // 2 :]
            self.half_sent.set()
            await self.released.wait()
        await self.stream.send_all(data)
        if self.dawdling:
            self.dawdling = False
            await self.released.wait()

    async def wait_send_all_might_not_block(self) -> None:
        """Never blocks."""
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive."""
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close; whoever is stuck learns of it."""
        await self.stream.aclose()
        self.released.set()


@define(eq=False)
class Session:
    """The server's side of one connection."""

    number: int
    opened_at: float
    stream: trio.abc.Stream
    socket: WebSocketConnection
    head: JSON
    inbox: list[JSON] = field(factory=list)
    closed_at: float | None = None
    code: int | None = None  # with which the client closed
    _came: trio.Event = field(factory=trio.Event)

    def put(self, message: JSON) -> None:
        """A message came in."""
        self.inbox.append(message)
        self._came.set()

    async def next(self) -> JSON:
        """Wait for the next message of the client's."""
        while not self.inbox:
            self._came = trio.Event()
            await self._came.wait()
        return self.inbox.pop(0)

    async def say(self, _like: JSON | None = None, /, **event: Any) -> None:
        """Send one event, on the lane of the request `_like`."""
        lane = {"stream_id": _like["stream_id"]} if _like and "stream_id" in _like else {}
        await self.socket.send_message(to_json({**event, **lane}).decode())

    async def begin(self, request: JSON, response_id: str) -> None:
        """A response starts."""
        await self.say(request, type="response.created", response={"id": response_id})

    async def delta(self, request: JSON, text: str = "x") -> None:
        """A piece of text."""
        await self.say(request, type="response.output_text.delta", delta=text)

    async def end(self, request: JSON, response_id: str, status: str = "completed") -> None:
        """A response ends; its output repeats the input."""
        output = [{"type": "message", "echo": request.get("input")}]
        response = {"id": response_id, "status": status, "output": output}
        await self.say(request, type=f"response.{status}", response=response)

    async def answer(self, request: JSON, response_id: str) -> None:
        """A whole response."""
        await self.begin(request, response_id)
        await self.end(request, response_id)

    def on_pong(self, *, answer: bool) -> list[float]:
        """Return a list of when the client's pings come in; without `answer` they stay unanswered."""
        came: list[float] = []
        send = self.socket._send

        async def sending(event: Event) -> None:
            if isinstance(event, Pong):
                came.append(trio.current_time())
            if answer or not isinstance(event, Pong):
                await send(event)

        self.socket._send = sending  # type: ignore[method-assign]  # the library has no hook for pings
        return came

    async def cut(self) -> None:
        """The connection breaks without a word."""
        await trio.aclose_forcefully(self.stream)


@define(eq=False)
class FakeServer:
    """Carries dials to sessions, each over a pair of memory streams."""

    nursery: trio.Nursery
    manual: bool = False
    refuse: list[tuple[int, list[tuple[bytes, bytes]], bytes]] = field(factory=list)  # the next upgrades
    mute: bool = False  # connections are accepted and nothing more is heard of them
    greeting: bytes | None = None  # sent instead of an upgrade; empty: hang up
    delay: float = 0.0  # s, before an upgrade is answered
    think: float = 0.0  # s, before an answer
    on_open: Callable[[Session], Awaitable[None]] | None = None
    sessions: list[Session] = field(factory=list)
    valves: list[Valve] = field(factory=list)
    dials: list[float] = field(factory=list)
    _ids: int = 0
    _opened: trio.Event = field(factory=trio.Event)

    async def connect(self) -> trio.abc.Stream:
        """Open one connection."""
        await trio.lowlevel.checkpoint()
        self.dials.append(trio.current_time())
        client, server = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, server)
        self.valves.append(Valve(client))
        return self.valves[-1]

    async def _serve(self, stream: trio.abc.Stream) -> None:
        if self.mute:
            await trio.sleep_forever()
        if self.greeting is not None:
            if self.greeting:
                await stream.receive_some()
                await stream.send_all(self.greeting)
            await trio.aclose_forcefully(stream)
            return
        async with trio.open_nursery() as reader:  # the library's; it must see the end of the close handshake
            request = await wrap_server_stream(
                reader, stream, message_queue_size=1000, max_message_size=2**26
            )
            await trio.sleep(self.delay)
            if self.refuse:
                await self._reject(request, *self.refuse.pop(0))
                await stream.aclose()
                reader.cancel_scope.cancel()
            else:
                async with trio.open_nursery() as nursery:
                    await self._converse(request, stream, nursery)
                    nursery.cancel_scope.cancel()

    async def _reject(
        self, request: WebSocketRequest, status: int, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        await request.reject(status, extra_headers=headers, body=body or None)

    async def _converse(
        self, request: WebSocketRequest, stream: trio.abc.Stream, nursery: trio.Nursery
    ) -> None:
        head = {name.decode().lower(): value.decode() for name, value in request.headers}
        target = {":path": request.path, ":host": request._event.host}
        socket = await request.accept()
        number = len(self.sessions) + 1
        session = Session(number, trio.current_time(), stream, socket, {**head, **target})
        self.sessions.append(session)
        self._opened.set()
        if self.on_open is not None:
            nursery.start_soon(self.on_open, session)
        try:
            while True:
                message: JSON = from_json(await socket.get_message())
                if self.manual:
                    session.put(message)
                else:
                    nursery.start_soon(self._answer, session, message)
        except ConnectionClosed as closed:
            session.closed_at = trio.current_time()
            session.code = closed.reason.code if closed.reason else None

    async def _answer(self, session: Session, message: JSON) -> None:
        self._ids += 1
        response_id = f"resp_{self._ids}"
        try:
            await session.begin(message, response_id)
            await trio.sleep(self.think)
            await session.end(message, response_id)
        except ConnectionClosed:
            return

    @property
    def live(self) -> list[Session]:
        """Connections that are open."""
        return [session for session in self.sessions if session.closed_at is None]

    async def opened(self, count: int) -> list[Session]:
        """Wait until so many connections have been opened, one after the other."""
        while len(self.sessions) < count:
            self._opened = trio.Event()
            await self._opened.wait()
        await trio.testing.wait_all_tasks_blocked()  # the client's side of it
        return self.sessions


def quiet(**changes: Any) -> PoolSettings:
    """Settings under which nothing happens that a test did not ask for."""
    plain: JSON = {
        "min_idle": 0,
        "jitter": 0.0,
        "dial_rate": 1000.0,
        "dial_burst": 1000,
        "read_interval": 0.0,
    }
    return PoolSettings(**{**plain, **changes})


@asynccontextmanager
async def pool_of(
    server: FakeServer, *, lanes: Lanes | None = None, endpoint: Endpoint | None = None, **changes: Any
) -> AsyncIterator[Pool]:
    """Open a pool of connections to the server."""
    point = endpoint or Endpoint(
        name="fake", url="ws://fake.test/v1/responses?q=1", lanes=lanes or Lanes.single()
    )
    settings = quiet(**changes)
    dialer = Dialer(point, settings, server.connect)
    async with open_pool(point, settings, dial=dialer, rng=random.Random(5)) as pool:
        yield pool


async def turn(lease: Lease, text: str = "hello", **fields: Any) -> Finished:
    """One turn on a lease."""
    exchange = await lease.send(ResponseCreate(input=text, **fields))
    return await exchange.result()


def assert_quiet(pool: Pool) -> None:
    """Nothing is leased and nobody waits; the pool keeps its size."""
    stats = pool.stats()
    assert (stats.leased_lanes, stats.waiting, stats.leases) == (0, 0, ())
    assert stats.open + stats.dialing <= pool.settings.max_connections + pool.settings.rotation_overlap

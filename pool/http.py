"""The same turn over HTTP: for messages that no socket takes, and for when a socket is the wrong tool.

Theory of operation
    A `Line` is to HTTP what a `Lease` is to the sockets: the right to one turn. It is created with a POST and read
    as server-sent events, by whoever waits for it: there is no task and no queue, so a slow consumer slows the
    server down through TCP, and a cancelled one closes the stream, which ends the turn on the server.

    Events go through the same `Cycle` as on a lane, and a refusal becomes the `error` event that a socket would
    have carried, so nobody above need know which way a turn went. Nothing is remembered between turns: a
    continuation works only when the server has stored its parent.

    httpcore keeps the connections and speaks HTTP/1.1 on them. They are opened by the same `Transport` as the
    sockets, so proxies and certificates follow the same settings; therefore httpcore sees `http` even where the
    stream that it is given is TLS.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpcore2
import trio
from attrs import define, field

from pool.answer import LOST, Answer, refusal
from pool.errors import ConnectionLost, DialFailed, LocalProtocolError, RemoteProtocolError, SettingsError
from pool.exchange import ACTED
from pool.network import Network
from pool.settings import Endpoint, PoolSettings
from pool.sse import EventReader
from pool.tap import Tap, hide
from pool.transport import Transport
from pool.wire.codec import encode_http_body, event_of_peek, parse, read, to_json
from pool.wire.cycle import Cycle, Finished
from pool.wire.events import STARTED, ResponseCreate, ServerEvent
from pool.wire.peek import Peek

NAME = "http"  # what logs and placements call the connection and the lane
TAIL = 0.1  # s, for the end of the stream after the terminal event: then the connection can be used again


@contextlib.asynccontextmanager
async def open_http(
    endpoint: Endpoint,
    settings: PoolSettings | None = None,
    *,
    connections: int = 64,
    transport: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
) -> AsyncIterator[HttpClient]:
    """Open a client of the endpoint's HTTP side; its idle connections are closed with the block.

    Args:
        endpoint: where, with which key and headers.
        settings: timeouts, certificates and proxies, as for the sockets.
        connections: at a time; a turn that finds them all busy waits.
        transport: opens a connection to the server; for tests and transports of your own.

    Raises:
        SettingsError: the endpoint has no `http_url`.
    """
    client = HttpClient(endpoint, settings or PoolSettings(), connections, transport)
    try:
        yield client
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + client.settings.close_grace):
            await client.aclose()


@define(eq=False, init=False)
class HttpClient:
    """Sends turns over HTTP. Made by `open_http`."""

    endpoint: Endpoint
    settings: PoolSettings
    _base: str
    _host: bytes
    _connections: httpcore2.AsyncConnectionPool = field(repr=False)
    tap: Tap | None = field(repr=False)  # somebody who watches
    serial: Iterator[int] = field(repr=False)  # of the turns that are watched

    def __init__(
        self,
        endpoint: Endpoint,
        settings: PoolSettings,
        connections: int,
        transport: Callable[[], Awaitable[trio.abc.Stream]] | None,
    ) -> None:
        self.endpoint, self.settings = endpoint, settings
        self.tap, self.serial = None, itertools.count(1)
        parts = urlsplit(endpoint.http_url or "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError("http_url", endpoint.http_url, "must look like https://host/v1")
        self._host = parts.netloc.encode("idna")
        self._base = urlunsplit(("", "", parts.path.rstrip("/"), "", ""))
        origin = f"{parts.scheme}://{parts.netloc}"
        self._connections = httpcore2.AsyncConnectionPool(
            max_connections=connections,
            keepalive_expiry=settings.idle_timeout,
            network_backend=Network(
                transport or Transport(origin, settings.ca_file, settings.use_proxy),
                origin,
                settings.dial_timeout,
            ),
        )

    async def aclose(self) -> None:
        """Close the connections. What is in flight fails."""
        await self._connections.aclose()

    @contextlib.asynccontextmanager
    async def line(self, *, holder: str = "") -> AsyncIterator[Line]:
        """Give the right to one turn; what is left of it at the end of the block is cut off."""
        async with contextlib.AsyncExitStack() as stack:
            line = Line(self, stack, holder)
            yield line
            await line.finish()

    async def post(self, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """POST JSON, and return the status, body and headers (named in lower case) of the answer.

        Raises:
            DialFailed: no connection could be opened.
            ConnectionLost: no whole answer came back.
        """
        async with contextlib.AsyncExitStack() as stack:
            answer = await self.begin(stack, path, body, accept="application/json")
            return answer.status, await answer.whole(), answer.headers

    async def begin(self, stack: contextlib.AsyncExitStack, path: str, body: bytes, *, accept: str) -> Answer:
        """POST JSON and return when the head of the answer is there; `stack` closes the rest. Raises like `post`."""
        answer = Answer(self.settings.stall_timeout)
        headers = await self._headers(accept)
        try:
            with trio.move_on_after(self.settings.stall_timeout):
                response = await stack.enter_async_context(self.request("POST", path, headers, body, answer))
                body_of = await stack.enter_async_context(contextlib.aclosing(response.aiter_stream()))
                answer.begun(response.status, response.headers, body_of)
                return answer
        except LOST as error:
            raise answer.lost(error) from None
        raise answer.lost(None)

    def request(
        self,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes | AsyncIterator[bytes] | None,
        answer: Answer,
    ) -> contextlib.AbstractAsyncContextManager[httpcore2.Response]:
        """Send a request of any kind; `answer` is told how far it has come. Raises what httpcore does."""
        target = httpcore2.URL(scheme=b"http", host=self._host, target=(self._base + path).encode())
        extensions = {"trace": answer.trace, "timeout": {"write": self.settings.send_timeout}}
        return self._connections.stream(
            method, target, headers=[(b"host", self._host), *headers], content=body, extensions=extensions
        )

    async def credentials(self) -> dict[str, str]:
        """Return the headers that every request has, in lower case: the key, and what the endpoint asks for.

        Raises:
            DialFailed: there is no key.
        """
        where = f"{self.endpoint.name} over HTTP"
        key = None
        with trio.move_on_after(self.settings.dial_timeout) as timeout:
            try:
                key = await self.endpoint.auth.key()
            except SettingsError as error:
                # With a cause it is the user's own key function that raised: it may work the next time.
                raise DialFailed(f"no key for {where}: {error}", hopeless=error.__cause__ is None) from None
        if timeout.cancelled_caught:
            raise DialFailed(f"no key for {where} within {self.settings.dial_timeout:g} s")
        hide(key)
        headers = {} if key is None else {"authorization": f"Bearer {key.reveal()}"}
        return headers | {name.lower(): value for name, value in self.endpoint.headers.items()}

    async def _headers(self, accept: str) -> list[tuple[bytes, bytes]]:
        headers = {"user-agent": "warmline", **await self.credentials()}
        headers |= {"content-type": "application/json", "accept": accept, "accept-encoding": "identity"}
        return [(name.encode("ascii"), value.encode()) for name, value in headers.items()]


@define(eq=False)
class Line:
    """The right to one turn over HTTP. Made by `HttpClient.line`; used like a `Lease`."""

    _client: HttpClient
    _stack: contextlib.AsyncExitStack
    _holder: str = ""
    waited: float = field(default=0.0, init=False)  # s, for a lane: as on a lease
    damage: float = field(default=0.0, init=False)
    exchange: HttpExchange | None = field(default=None, init=False)

    @property
    def connection_name(self) -> str:
        """The connection, as logs and statistics call it."""
        return NAME

    @property
    def lane_name(self) -> str:
        """The lane, as logs and statistics call it."""
        return NAME

    def remembers(self, _response_id: str | None) -> bool:
        """Nothing is ever remembered on this side."""
        return False

    async def send(self, event: ResponseCreate, *, stream: bool = False) -> HttpExchange:
        """Start a response. `stream` makes no difference to the server: see `HttpExchange.batch`.

        Raises:
            LocalProtocolError: this line has been used, or the request exists only on a socket (a warm-up).
            DialFailed: no connection could be opened; nothing was sent.
            ConnectionLost: the connection broke before an answer began.
        """
        if self.exchange is not None or event.generate is False:
            raise LocalProtocolError("a line carries one turn, and HTTP has no warm-up")
        body = encode_http_body(event, stream=True)
        began, tap, name = trio.current_time(), self._client.tap, NAME
        if tap is not None:
            name = f"h{next(self._client.serial)}"
            tap.sent(name, None, self._holder, event, body)
        answer = await self._client.begin(self._stack, "/responses", body, accept="text/event-stream")
        self.exchange = HttpExchange(answer, self._client.settings.max_message, began, len(body), name, tap)
        if answer.status != 200:
            self.exchange.refuse(refusal(answer.status, await answer.whole(), answer.headers))
        elif not answer.headers.get("content-type", "").startswith("text/event-stream"):
            kind = answer.headers.get("content-type")
            raise RemoteProtocolError(f"asked for events over HTTP, was given {kind or 'no content type'}")
        return self.exchange

    async def finish(self) -> None:
        """Read what follows the terminal event, so that the connection can carry another turn."""
        await trio.lowlevel.checkpoint()
        if self.exchange is not None and self.exchange.finished is not None:
            with trio.move_on_after(TAIL):
                await self.exchange.drain()


@define(eq=False)
class HttpExchange:
    """A response that is read as it comes. Offers what `pool.exchange.Exchange` does."""

    _answer: Answer
    _limit: int
    sent_at: float
    size: int  # bytes of the request
    name: str = NAME  # for who watches
    _tap: Tap | None = None
    first_event_at: float | None = field(default=None, init=False)
    first_output_at: float | None = field(default=None, init=False)  # the first event beyond "it has started"
    ended_at: float | None = field(default=None, init=False)
    finished: Finished | None = field(default=None, init=False)
    _cycle: Cycle = field(factory=Cycle, init=False)
    _reader: EventReader = field(init=False)
    _told: bool = field(default=False, init=False)  # a refusal has been given to the consumer as an event

    def __attrs_post_init__(self) -> None:
        self._reader = EventReader(self._limit)
        self._cycle.send()

    def refuse(self, payload: dict[str, Any]) -> None:
        """Take the one event that says that there is no response."""
        text = to_json(payload).decode()
        self._take(*read(text))

    async def batch(self) -> list[ServerEvent]:
        """Wait for events and return those at hand; empty after the terminal one.

        Raises:
            ConnectionLost: the stream broke before the response ended.
            RemoteProtocolError: what came is no stream of events, or breaks the protocol.
        """
        if self.finished is not None and self.finished.status == "refused" and not self._told:
            self._told = True
            await trio.lowlevel.checkpoint()
            return [self.finished.error] if self.finished.error is not None else []
        events: list[ServerEvent] = []
        while not events and self.finished is None:
            events = [event_of_peek(found, text) for found, text in await self._more()]
        return events

    async def result(self) -> Finished:
        """Wait for the end of the response. Raises like `batch`."""
        while self.finished is None:
            await self._more()
        return self.finished

    async def drain(self) -> None:
        """Read to the end of the stream, whatever is there."""
        with contextlib.suppress(ConnectionLost):
            while await self._answer.chunk():
                pass

    async def _more(self) -> list[tuple[Peek, str]]:
        started = self.first_event_at is not None
        chunk = await self._answer.chunk(started=started)
        if not chunk:
            raise ConnectionLost("the stream ended before the response did", sent=True, started=started)
        messages: list[tuple[Peek, str]] = []
        for data in self._reader.feed(chunk):
            if self.finished is None and data != b"[DONE]":
                found, text = read(_text(data))
                self._take(found, text)
                messages.append((found, text))
        return messages

    def _take(self, found: Peek, text: str) -> None:
        now = trio.current_time()
        if self._tap is not None:
            self._tap.received(self.name, parse(text), text)
        if self.first_event_at is None:
            self.first_event_at = now
        if self.first_output_at is None and found.type not in STARTED:
            self.first_output_at = now
        if found.type in ACTED:
            self.finished = self._cycle.receive(event_of_peek(found, text))
            if self.finished is not None:
                self.ended_at = now


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"a message that is not UTF-8: {error}") from None

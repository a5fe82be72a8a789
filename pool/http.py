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
from urllib.parse import urlsplit, urlunsplit

import httpcore2
import trio
from attrs import define, field

from pool.answer import LOST, Answer, refusal
from pool.errors import DialFailed, LocalProtocolError, SettingsError
from pool.http_exchange import NAME, HttpExchange
from pool.network import Network
from pool.pieces import PIECE, Pieces
from pool.redaction import GIVEN, Secrets
from pool.settings import Endpoint, PoolSettings
from pool.stats.recorder import HttpRecorder
from pool.stats.snapshot import HttpStats
from pool.tap import Tap, hide
from pool.transport import Transport
from pool.wire.codec import encode_http_body
from pool.wire.events import ResponseCreate

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
    recorder: HttpRecorder = field(repr=False)
    _under_way: set[Answer] = field(repr=False)  # to requests that are not over
    tap: Tap | None = field(repr=False)  # somebody who watches
    serial: Iterator[int] = field(repr=False)  # of the turns that are watched
    _keys: Secrets = field(repr=False)  # the last ones: they may change with each request
    _given: Secrets = field(repr=False)  # with the endpoint

    def __init__(
        self,
        endpoint: Endpoint,
        settings: PoolSettings,
        connections: int,
        transport: Callable[[], Awaitable[trio.abc.Stream]] | None,
    ) -> None:
        self.endpoint, self.settings = endpoint, settings
        self.recorder, self._under_way = HttpRecorder(), set()
        self.tap, self.serial = None, itertools.count(1)
        self._keys, self._given = Secrets(), Secrets(limit=GIVEN)
        self._given.keep_url(endpoint.http_url)
        self._given.keep_headers(endpoint.headers)
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
                self.recorder,
            ),
        )

    def stats(self) -> HttpStats:
        """Return a frozen snapshot of what went this way, turns and everything else."""
        # What is being opened is on httpcore's list, too.
        alive = [one for one in self._connections.connections if one.is_connected()]
        return self.recorder.snapshot(
            connections=len(alive), idle=sum(one.is_idle() for one in alive), in_flight=len(self._under_way)
        )

    async def aclose(self) -> None:
        """Close the connections. What is in flight fails."""
        await self._connections.aclose()

    @contextlib.asynccontextmanager
    async def line(self, *, holder: str = "") -> AsyncIterator[Line]:
        """Give the right to one turn; what is left of it at the end of the block is cut off."""
        async with contextlib.AsyncExitStack() as stack:
            line = Line(self, stack, holder)
            try:
                yield line
                await line.finish()
            finally:
                line.count(self.recorder)

    async def post(self, path: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """POST JSON, and return the status, body and headers (named in lower case) of the answer.

        Raises:
            DialFailed: no connection could be opened.
            ConnectionLost: no whole answer came back.
        """
        answer = self.answer()
        async with contextlib.AsyncExitStack() as stack:
            await self.begin(stack, answer, path, body, accept="application/json")
            content = await (answer.whole() if answer.status < 400 else answer.complaint())
            return answer.status, content, answer.headers

    def answer(self) -> Answer:
        """Return what will be told of one request, and hold what comes back."""
        return Answer(self.settings.stall_timeout)

    async def begin(
        self,
        stack: contextlib.AsyncExitStack,
        answer: Answer,
        path: str,
        body: bytes | Pieces,
        *,
        accept: str,
    ) -> None:
        """POST JSON and return when the head of the answer is there; `stack` closes the rest. Raises like `post`."""
        headers = await self._headers(accept)
        content: bytes | AsyncIterator[bytes]
        if isinstance(body, bytes):
            content = body
        elif body.size <= PIECE:
            content = body.whole()
        else:
            headers.append((b"content-length", b"%d" % body.size))
            content = await stack.enter_async_context(contextlib.aclosing(body.pieces()))
        try:
            with trio.move_on_after(self.settings.stall_timeout):
                response = await stack.enter_async_context(
                    self.request("POST", path, headers, content, answer)
                )
                body_of = await stack.enter_async_context(contextlib.aclosing(response.aiter_stream()))
                answer.begun(response.status, response.headers, body_of)
                return
        except LOST as error:
            raise answer.lost(error) from None
        raise answer.lost(None)

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes | AsyncIterator[bytes] | None,
        answer: Answer,
    ) -> AsyncIterator[httpcore2.Response]:
        """Send a request of any kind; `answer` is told how far it has come. Raises what httpcore does."""
        target = httpcore2.URL(scheme=b"http", host=self._host, target=(self._base + path).encode())
        extensions = {"trace": answer.trace, "timeout": {"write": self.settings.send_timeout}}
        self.recorder.requests += 1
        self._under_way.add(answer)
        try:
            async with self._connections.stream(
                method, target, headers=[(b"host", self._host), *headers], content=body, extensions=extensions
            ) as response:
                yield response
        finally:
            self._under_way.discard(answer)

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
        self._keys.keep(None if key is None else key.reveal())
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
    _answer: Answer | None = field(default=None, init=False)  # to what was sent

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
        body = Pieces(encode_http_body(event, stream=True))
        began, tap, name = trio.current_time(), self._client.tap, NAME
        if tap is not None:
            name = f"h{next(self._client.serial)}"
            tap.sent(name, None, self._holder, event, body.whole())
        client = self._client
        answer = self._answer = client.answer()
        await client.begin(self._stack, answer, "/responses", body, accept="text/event-stream")
        self.exchange = HttpExchange(answer, client.settings.max_message, began, body.size, name, tap)
        if answer.status != 200:
            self.exchange.refuse(refusal(answer.status, await answer.complaint(), answer.headers))
        elif not answer.headers.get("content-type", "").startswith("text/event-stream"):
            kind = answer.headers.get("content-type") or "no content type"
            raise answer.nonsense(f"asked for events over HTTP, was given {kind}")
        return self.exchange

    async def finish(self) -> None:
        """Read what follows the terminal event, so that the connection can carry another turn."""
        await trio.lowlevel.checkpoint()
        if self.exchange is not None and self.exchange.finished is not None:
            with trio.move_on_after(TAIL):
                await self.exchange.drain()

    def count(self, seen: HttpRecorder) -> None:
        """Count the turn, if it has left."""
        answer, exchange = self._answer, self.exchange
        if answer is not None and answer.sent:
            finished = None if exchange is None else exchange.finished
            seen.turns.add(
                finished.status if finished is not None else "lost" if answer.broken else "abandoned"
            )
        if exchange is not None and exchange.ended_at is not None and exchange.first_event_at is not None:
            sent = exchange.sent_at
            seen.first_event.record(exchange.first_event_at - sent)
            if exchange.first_output_at is not None:
                seen.first_token.record(exchange.first_output_at - sent)
            seen.turn.record(exchange.ended_at - sent)

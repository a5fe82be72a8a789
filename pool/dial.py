"""Open a WebSocket: a transport, and the upgrade on it. The only importer of trio_websocket on the client's side.

Theory of operation
    `dialer(use, scope)` opens one connection, calls `use(wire)`, and closes it: the nursery that the WebSocket
    library needs lives and dies inside this one call, in the connection's own task, so that a refused upgrade
    or a broken socket can never reach a neighbour. Whatever goes wrong before `use` is a `DialFailed`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import h11
import trio
import trio_websocket
from attrs import define, field

from pool.auth import Secret
from pool.errors import DialFailed, SettingsError
from pool.line import HandshakeLost, Line
from pool.pauses import Pauses
from pool.redaction import GIVEN, Secrets, redacted
from pool.retry_after import retry_after
from pool.settings import Endpoint, PoolSettings, without_query
from pool.tap import hide
from pool.transport import READ_SIZE, Transport

MOST_OF_A_REFUSAL = 64 * 1024  # bytes that are looked at
QUEUE = 64  # messages; our reader never lets it fill for long
PARTING = 0.1  # s for a close frame to leave when nobody reads the answer
HOPELESS = frozenset({400, 401, 404, 405, 410, 426})  # trying the same upgrade again cannot help


@define
class WireClosed(Exception):  # the end of a connection is not always an error
    """The connection has ended. `code` 1006 means without a close frame."""

    code: int
    reason: str | None


class Wire(Protocol):
    """An open connection, as the rest of the pool sees it: text in, UTF-8 out."""

    @property
    def bytes_in(self) -> int:
        """Bytes received, framing included, before TLS."""
        ...

    @property
    def bytes_out(self) -> int:
        """Bytes sent, framing included, before TLS."""
        ...

    @property
    def last_inbound(self) -> float:
        """When the last byte came in, on trio's clock; control frames count too."""
        ...

    def listen(self, take: Callable[[str | bytes], None]) -> None:
        """Give the messages to `take` as they are read, binary ones as `b""`. It must neither wait nor raise."""
        ...

    async def receive(self) -> str | bytes:
        """Wait for a message that is not given that way. Raises `WireClosed`."""
        ...

    async def send(self, message: Sequence[bytes]) -> None:
        """Send one message, given in parts. Raises `WireClosed`. If it is interrupted, the connection is spoilt."""
        ...

    async def ping(self) -> bool:
        """Send a ping; False: a message is on its way already. Raises `WireClosed`, and can spoil like `send`."""
        ...


Use = Callable[[Wire], Awaitable[None]]


class Dial(Protocol):
    """Opens one connection, gives it to `use`, closes it. Raises `DialFailed` before `use` is called."""

    async def __call__(self, use: Use, scope: trio.CancelScope, /) -> None:
        """Run one connection from dial to close. `scope`, new, covers what comes before `use`."""
        ...


Failure = TypeVar("Failure", bound=Exception)


class _WebSocketWire:
    """`Wire` over trio-websocket, which only sees the upgrade and the end, and sends only those."""

    __slots__ = ("_line", "_socket")

    def __init__(self, socket: trio_websocket.WebSocketConnection, line: Line) -> None:
        self._socket, self._line = socket, line

    @property
    def bytes_in(self) -> int:
        return self._line.bytes_in

    @property
    def bytes_out(self) -> int:
        return self._line.bytes_out

    @property
    def last_inbound(self) -> float:
        return self._line.last_inbound

    def listen(self, take: Callable[[str | bytes], None]) -> None:
        self._line.listen(take)

    async def receive(self) -> str | bytes:
        try:
            return await self._socket.get_message()
        except trio_websocket.ConnectionClosed as closed:
            raise self._closed(closed.reason) from None

    async def send(self, message: Sequence[bytes]) -> None:
        if (reason := self._socket.closed) is not None:
            raise self._closed(reason)
        try:
            await self._line.send_message(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise WireClosed(1006, None) from None

    async def ping(self) -> bool:
        try:
            return await self._line.ping()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise WireClosed(1006, None) from None

    def _closed(self, reason: trio_websocket.CloseReason | None) -> WireClosed:
        """Return how it ended: as the line has seen it, for the library only knows what it was told."""
        if (end := self._line.end) is not None:
            return WireClosed(end.code, end.reason or None)
        return WireClosed(1006, None) if reason is None else WireClosed(reason.code, reason.reason)


@define(eq=False)
class Dialer:
    """Dials one endpoint over real sockets, or over whatever `transport` opens."""

    endpoint: Endpoint
    settings: PoolSettings
    transport: Callable[[], Awaitable[trio.abc.Stream]] = field()
    _pauses: Pauses = field(factory=Pauses, init=False, repr=False)
    _keys: Secrets = field(
        factory=Secrets, init=False, repr=False
    )  # the last ones: they may change with each dial
    _given: Secrets = field(factory=lambda: Secrets(limit=GIVEN), init=False, repr=False)  # with the endpoint
    _key: Secret | None = field(default=None, init=False, repr=False)
    _said: list[tuple[bytes, bytes]] = field(factory=list, init=False, repr=False)  # headers, with that key

    def __attrs_post_init__(self) -> None:
        self._given.keep_url(self.endpoint.url)
        self._given.keep_headers(self.endpoint.headers)

    @transport.default
    def _over_tcp(self) -> Transport:
        return Transport(self.endpoint.url, self.settings.ca_file, self.settings.use_proxy)

    async def __call__(self, use: Use, scope: trio.CancelScope) -> None:
        """Dial, run `use` on the open connection, close. Cancelling `scope` gives up a dial that is under way.

        Raises:
            DialFailed: it could not be opened.
        """
        failed: DialFailed | None = None
        line: Line | None = None
        scope.deadline = trio.current_time() + self.settings.dial_timeout
        try:
            async with trio.open_nursery() as nursery:
                # Open sockets are many, and idle: what only the dial needs is gone before `use`.
                with scope:
                    headers = await self._headers()
                    line = Line(
                        await self.transport(), self.settings.max_message, self.settings.read_interval
                    )
                    socket = await self._upgrade(nursery, line, headers)
                if line is not None and line.upgraded:
                    await self._use(socket, line, use)
                nursery.cancel_scope.cancel()
        except* DialFailed as group:
            failed = _only(group, DialFailed)
        except* trio_websocket.ConnectionRejected as group:
            failed = self._refused(_only(group, trio_websocket.ConnectionRejected))
        except* (HandshakeLost, h11.LocalProtocolError):
            pass  # h11's is wsproto's answer to an answer that is not HTTP
        finally:
            if line is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + self.settings.close_grace):
                    await line.abandon()
        if failed is not None:
            raise failed
        if line is None:
            raise DialFailed(f"cannot reach {self._where}: no answer within {self.settings.dial_timeout:g} s")
        if not line.upgraded:
            what = (
                f"no upgrade within {self.settings.dial_timeout:g} s"
                if scope.cancelled_caught
                else "it closed during the upgrade, or its answer is not HTTP"
            )
            raise DialFailed(f"cannot open {self._where}: {what}")

    async def _upgrade(
        self, nursery: trio.Nursery, line: Line, headers: list[tuple[bytes, bytes]]
    ) -> trio_websocket.WebSocketConnection:
        parts = urlsplit(self.endpoint.url)
        socket = await trio_websocket.wrap_client_stream(
            nursery,
            line,  # type: ignore[arg-type]  # typed for two kinds of stream, but any will do
            parts.netloc,
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            extra_headers=headers,
            message_queue_size=QUEUE,
            max_message_size=self.settings.max_message,
            receive_buffer_size=READ_SIZE,
        )
        line.upgraded = True
        return socket

    async def _use(self, socket: trio_websocket.WebSocketConnection, line: Line, use: Use) -> None:
        grace = self.settings.close_grace
        try:
            await use(_WebSocketWire(socket, line))
        except trio.Cancelled:
            # The library's reader is cancelled too: the close frame can leave, but nobody would see its answer.
            grace = min(grace, PARTING)
            raise
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + grace):
                await socket.aclose()

    @property
    def _where(self) -> str:
        return without_query(self.endpoint.url)

    async def _headers(self) -> list[tuple[bytes, bytes]]:
        """Return what the upgrade says beside the usual: the same list each time, as long as the key is the same."""
        given = {name.lower() for name in self.endpoint.headers}
        try:
            key = await self.endpoint.auth.key()
        except SettingsError as error:
            # With a cause it is the user's own key function that raised: it may work the next time.
            raise DialFailed(f"no key for {self._where}: {error}", hopeless=error.__cause__ is None) from None
        hide(key)
        self._keys.keep(None if key is None else key.reveal())
        if key != self._key or not self._said:
            headers = dict(self.endpoint.headers)
            if key is not None and "authorization" not in given:
                headers["Authorization"] = f"Bearer {key.reveal()}"
            if "user-agent" not in given:
                headers["User-Agent"] = "warmline"
            self._key = key
            self._said = [(name.encode("ascii"), value.encode()) for name, value in headers.items()]
        return self._said

    def _refused(self, rejected: trio_websocket.ConnectionRejected) -> DialFailed:
        status = rejected.status_code
        headers = {
            bytes(name).decode("latin-1").lower(): bytes(value).decode("latin-1")
            for name, value in rejected.headers or ()
        }
        # First the keys, then the cut: half a key would not be found.
        body = redacted((rejected.body or b"")[:MOST_OF_A_REFUSAL].decode("utf-8", "replace"))[:300].strip()
        remedy = {
            401: "; check the key",
            403: "; the key may lack access, or too many connections were dialled too fast",
            404: "; check the URL",
            426: "; this server has no WebSocket mode here",
            429: "; too many connections",
        }.get(status, "")
        message = (
            f"{self._where} refused the upgrade with HTTP {status}{remedy}{f' ({body})' if body else ''}"
        )
        return DialFailed(
            message,
            status=status,
            retry_after=retry_after(headers, time.time()),
            hopeless=status in HOPELESS,
        )


def _only(group: BaseExceptionGroup[Failure], kind: type[Failure]) -> Failure:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, kind)
    return first

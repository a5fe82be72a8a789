"""Open a WebSocket: a transport, and the upgrade on it. The only importer of trio_websocket on the client's side.

Theory of operation
    `dialer(use)` opens one connection, calls `use(wire)`, and closes it: the nursery that the WebSocket
    library needs lives and dies inside this one call, in the connection's own task, so that a refused upgrade
    or a broken socket can never reach a neighbour. Whatever goes wrong before `use` is a `DialFailed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import urlsplit

import trio
import trio_websocket
from attrs import define, field
from wsproto.utilities import LocalProtocolError

from pool.errors import DialFailed, SettingsError
from pool.retry_after import seconds
from pool.settings import Endpoint, PoolSettings, without_query
from pool.transport import READ_SIZE, Transport

QUEUE = 64  # messages; our reader never lets it fill for long
HOPELESS = frozenset({400, 401, 404, 405, 410, 426})  # trying the same upgrade again cannot help


@define
class WireClosed(Exception):  # the end of a connection is not always an error
    """The connection has ended. `code` 1006 means without a close frame."""

    code: int
    reason: str | None


class Wire(Protocol):
    """An open connection, as the rest of the pool sees it: text in, text out."""

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

    async def receive(self) -> str | bytes:
        """Return the next message. Raises `WireClosed`."""
        ...

    async def send(self, text: str) -> None:
        """Send one message. Raises `WireClosed`. If it is interrupted, the connection is spoilt."""
        ...

    async def ping(self) -> None:
        """Send a ping and wait for its pong. Raises `WireClosed`."""
        ...


Use = Callable[[Wire], Awaitable[None]]


class Dial(Protocol):
    """Opens one connection, gives it to `use`, closes it. Raises `DialFailed` before `use` is called."""

    async def __call__(self, use: Use) -> None:
        """Run one connection from dial to close."""
        ...


Connect = Callable[[], Awaitable[trio.abc.Stream]]


class _HandshakeLost(Exception):
    """The peer went away, or spoke nonsense, before the upgrade was through."""


class _Metered(trio.abc.Stream):
    """The transport, counting bytes and noting when the last ones came in.

    Until the upgrade is through it raises when the connection ends: the library would wait for ever. A send that
    is interrupted leaves half a frame behind, so it takes the transport with it.
    """

    def __init__(self, transport: trio.abc.Stream) -> None:
        self._transport = transport
        self._receive = transport.receive_some
        self.bytes_in = self.bytes_out = 0
        self.upgraded = False
        self.last_inbound = trio.current_time()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._receive(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if self.upgraded:
                raise
            raise _HandshakeLost from None
        if not data and not self.upgraded:
            raise _HandshakeLost
        self.bytes_in += len(data)
        self.last_inbound = trio.current_time()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._transport.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if self.upgraded:
                raise
            raise _HandshakeLost from None
        except trio.Cancelled:
            await trio.aclose_forcefully(self._transport)
            raise
        self.bytes_out += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._transport.aclose()
        if not self.upgraded:  # the library closes a stream on which it cannot understand the answer
            raise _HandshakeLost

    async def abandon(self) -> None:
        """Close at once, without a farewell."""
        await trio.aclose_forcefully(self._transport)


class _WebSocketWire:
    """`Wire` over trio-websocket."""

    __slots__ = ("_get", "_metered", "_socket")

    def __init__(self, socket: trio_websocket.WebSocketConnection, metered: _Metered) -> None:
        self._socket, self._metered = socket, metered
        self._get = socket.get_message

    @property
    def bytes_in(self) -> int:
        return self._metered.bytes_in

    @property
    def bytes_out(self) -> int:
        return self._metered.bytes_out

    @property
    def last_inbound(self) -> float:
        return self._metered.last_inbound

    async def receive(self) -> str | bytes:
        try:
            return await self._get()
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from None

    async def send(self, text: str) -> None:
        try:
            await self._socket.send_message(text)
        except (trio_websocket.ConnectionClosed, LocalProtocolError) as closed:
            raise _closed(closed) from None

    async def ping(self) -> None:
        try:
            await self._socket.ping()
        except (trio_websocket.ConnectionClosed, LocalProtocolError) as closed:
            raise _closed(closed) from None


def _closed(error: trio_websocket.ConnectionClosed | LocalProtocolError) -> WireClosed:
    # The library has no state for a close that is under way: wsproto, below it, refuses to send then.
    reason = None if isinstance(error, LocalProtocolError) else error.reason
    return WireClosed(1006, None) if reason is None else WireClosed(reason.code, reason.reason)


@define(eq=False)
class Dialer:
    """Dials one endpoint over real sockets, or over whatever `transport` opens."""

    endpoint: Endpoint
    settings: PoolSettings
    transport: Callable[[], Awaitable[trio.abc.Stream]] = field()

    @transport.default
    def _over_tcp(self) -> Transport:
        return Transport(self.endpoint.url, self.settings.ca_file, self.settings.use_proxy)

    async def __call__(self, use: Use) -> None:
        """Dial, run `use` on the open connection, close.

        Raises:
            DialFailed: it could not be opened.
        """
        parts = urlsplit(self.endpoint.url)
        rejected: trio_websocket.ConnectionRejected | None = None
        transport: trio.abc.Stream | None = None
        with trio.CancelScope(deadline=trio.current_time() + self.settings.dial_timeout) as timeout:
            headers = await self._headers()
            transport = await self.transport()
        if transport is None:
            raise DialFailed(f"cannot reach {self._where}: no answer within {self.settings.dial_timeout:g} s")
        metered = _Metered(transport)
        try:
            async with trio.open_nursery() as nursery:
                with trio.CancelScope(deadline=timeout.deadline) as handshake:
                    socket = await trio_websocket.wrap_client_stream(
                        nursery,
                        metered,  # type: ignore[arg-type]  # typed for two kinds of stream, but any will do
                        parts.netloc,
                        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
                        extra_headers=headers,
                        message_queue_size=QUEUE,
                        max_message_size=self.settings.max_message,
                        receive_buffer_size=READ_SIZE,
                    )
                    metered.upgraded = True
                if metered.upgraded:
                    await self._use(socket, metered, use)
                nursery.cancel_scope.cancel()
        except* trio_websocket.ConnectionRejected as group:
            rejected = _only(group)
        except* _HandshakeLost:
            pass
        except* LocalProtocolError:
            # wsproto's answer to a pong that the library sends while a close is under way; closed it is, then.
            if not metered.upgraded:
                raise
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self.settings.close_grace):
                await metered.abandon()
        if rejected is not None:
            raise self._refused(rejected)
        if not metered.upgraded:
            late = handshake.cancelled_caught
            what = (
                f"no upgrade within {self.settings.dial_timeout:g} s"
                if late
                else "it closed during the upgrade, or its answer is not HTTP"
            )
            raise DialFailed(f"cannot open {self._where}: {what}")

    async def _use(self, socket: trio_websocket.WebSocketConnection, metered: _Metered, use: Use) -> None:
        try:
            await use(_WebSocketWire(socket, metered))
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self.settings.close_grace):
                await socket.aclose()

    @property
    def _where(self) -> str:
        return without_query(self.endpoint.url)

    async def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = dict(self.endpoint.headers)
        given = {name.lower() for name in headers}
        try:
            key = await self.endpoint.auth.key()
        except SettingsError as error:
            # With a cause it is the user's own key function that raised: it may work the next time.
            raise DialFailed(f"no key for {self._where}: {error}", hopeless=error.__cause__ is None) from None
        if key is not None and "authorization" not in given:
            headers["Authorization"] = f"Bearer {key.reveal()}"
        if "user-agent" not in given:
            headers["User-Agent"] = "warmline"
        return [(name.encode("ascii"), value.encode()) for name, value in headers.items()]

    def _refused(self, rejected: trio_websocket.ConnectionRejected) -> DialFailed:
        status = rejected.status_code
        headers = {bytes(name).lower(): bytes(value) for name, value in rejected.headers or ()}
        body = (rejected.body or b"")[:300].decode("utf-8", "replace").strip()
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
            retry_after=seconds(headers.get(b"retry-after", b"").decode("latin-1")),
            hopeless=status in HOPELESS,
        )


def _only(group: BaseExceptionGroup[trio_websocket.ConnectionRejected]) -> trio_websocket.ConnectionRejected:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, trio_websocket.ConnectionRejected)
    return first

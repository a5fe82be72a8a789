"""The server's side of a WebSocket on one connection: messages in, messages out. Knows no protocol above it.

Theory of operation
    wsproto does the protocol; this is the loop around it, over any trio stream. One task receives, and any number
    send: what they say is framed at once, in order, and given to the socket on the spot, because to wake a task for
    that costs several times as much. What the socket does not take, and what follows upon another message at once,
    lies in an outbox until `write`, a task of its own, hands it to the stream, all that has gathered in one go; so
    does everything where the stream is no bare socket. Nobody who sends can be interrupted in the middle of a frame,
    therefore.

    The outbox is bounded by those who say `room` after what they have said: past its high watermark that waits, and
    a client that takes nothing for `send_timeout` seconds is given up. Messages are read one read at a time, by
    whoever receives, so a client that sends faster than it is served is held back by TCP.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence

import trio
from attrs import define, field
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from pool.web import MalformedRequest

HIGH_WATERMARK = 1024 * 1024  # bytes that wait in the outbox before `room` waits
BUNCH = 0.002  # s. Messages that come sooner than that one after the other are written together
_PIECE = 256 * 1024  # bytes; each may take the send timeout
_READ = 64 * 1024
# What is compressed may be a thousand times larger: the bound of a message is looked at after each read.
_SMALL_READ = 4 * 1024
_TEXT = 0x81  # the first byte of a whole text message
_PARTING = 2.0  # s, for the close handshake


class SocketEnded(Exception):  # the end of a connection is not always an error
    """Nothing more can be received or sent. `code` 1006 means that there was no close frame."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code, self.reason = code, reason


async def accept_websocket(
    stream: trio.abc.Stream,
    raw: bytes,
    *,
    max_message: int,
    send_timeout: float,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> WebSocket:
    """Accept an upgrade whose request `raw` begins with; what follows it there is read first.

    Args:
        stream: what the request came on.
        raw: bytes that were read from it.
        max_message: bytes, of one message; over it the connection is closed with 1009.
        send_timeout: s without any progress, after which a client is given up.
        headers: of the answer.

    Raises:
        MalformedRequest: the request is no WebSocket handshake; nothing was sent.
        SocketEnded: the client has gone.
    """
    protocol = WSConnection(ConnectionType.SERVER)
    end = raw.find(b"\r\n\r\n") + 4
    try:
        protocol.receive_data(raw[:end])
    except RemoteProtocolError as error:
        raise MalformedRequest(400, str(error)) from None
    request = next(protocol.events())
    assert isinstance(request, Request)
    offered = any(str(offer).startswith(PerMessageDeflate.name) for offer in request.extensions)
    extensions: list[Extension] = [PerMessageDeflate()] if offered else []
    answer = protocol.send(AcceptConnection(extensions=extensions, extra_headers=list(headers)))
    compressed = any(extension.enabled() for extension in extensions)
    protocol.receive_data(raw[end:])  # wsproto would forget it
    socket = WebSocket(stream, protocol, max_message, send_timeout, compressed)
    try:
        await stream.send_all(answer)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise SocketEnded from None
    return socket


@define(eq=False)
class WebSocket:
    """An accepted connection. Made by `accept_websocket`; `write` has to run as long as it is used."""

    _stream: trio.abc.Stream
    _protocol: WSConnection
    _max_message: int
    _send_timeout: float
    compressed: bool  # with permessage-deflate
    last_inbound: float = field(factory=trio.current_time, init=False)  # on trio's clock; pongs count too
    bytes_in: int = field(default=0, init=False)
    bytes_out: int = field(default=0, init=False)
    _parts: list[str] = field(factory=list, init=False)  # of a message that is not complete
    _size: int = field(default=0, init=False)  # of those
    _outbox: list[bytes] = field(factory=list, init=False)
    _waiting: int = field(default=0, init=False)  # bytes in the outbox, and on their way
    _ended: SocketEnded | None = field(default=None, init=False)
    _some: trio.Event = field(factory=trio.Event, init=False)  # there is something to write
    _room: trio.Event = field(factory=trio.Event, init=False)  # replaced when there is none
    _socket: trio.socket.SocketType | None = field(init=False)  # the stream is nothing else
    _pushed_at: float = field(default=-math.inf, init=False)
    _closing: bool = field(default=False, init=False)
    _written: trio.Event = field(factory=trio.Event, init=False)  # `write` has ended

    def __attrs_post_init__(self) -> None:
        self._room.set()
        self._socket = self._stream.socket if isinstance(self._stream, trio.SocketStream) else None

    # Receiving.

    async def receive(self) -> list[str | bytes]:
        """Wait for messages, and return those at hand, in order.

        Raises:
            SocketEnded: the connection is over.
        """
        while True:
            messages = self._take()
            if messages:
                await trio.lowlevel.checkpoint()
                return messages
            if self._ended is not None:
                raise self._ended
            try:
                data = bytes(await self._stream.receive_some(_SMALL_READ if self.compressed else _READ))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self.last_inbound = trio.current_time()
            self.bytes_in += len(data)
            self._protocol.receive_data(data or None)

    def _take(self) -> list[str | bytes]:
        """Return the messages that have arrived whole, and see to everything else that has."""
        messages: list[str | bytes] = []
        if self._ended is not None:
            return messages
        for event in self._protocol.events():
            if isinstance(event, TextMessage | BytesMessage):
                self._size += _size_of(event.data)
                if self._size > self._max_message:
                    self._give_up(1009, f"a message may have {self._max_message} bytes")
                    break
                if isinstance(event, TextMessage):
                    self._parts.append(event.data)
                if event.message_finished:
                    # What a binary message says is of no interest: it is not text.
                    messages.append("".join(self._parts) if isinstance(event, TextMessage) else b"")
                    self._parts, self._size = [], 0
            elif isinstance(event, Ping):
                self._say(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection):
                if self._protocol.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
                    self._say(self._protocol.send(event.response()))
                self._ended = SocketEnded(event.code, event.reason or "")
                break
        return messages

    def _give_up(self, code: int, reason: str) -> None:
        self._say(self._protocol.send(CloseConnection(code=code, reason=reason)))
        self._ended = SocketEnded(code, reason)

    # Sending.

    def post(self, text: bytes) -> None:
        """Put one message, UTF-8 text, into the outbox, full or not; `room` comes after it.

        Raises:
            SocketEnded: the connection is over.
        """
        if self._ended is not None:
            raise self._ended
        if not self.compressed and self._protocol.state is ConnectionState.OPEN:
            self._say(framed(text))
            return
        try:
            self._say(self._protocol.send(TextMessage(data=text.decode())))
        except LocalProtocolError:
            raise SocketEnded from None

    async def room(self) -> None:
        """Wait while the outbox is full. Raises like `post`."""
        if self._room.is_set():
            await trio.lowlevel.checkpoint()
        else:
            await self._room.wait()
        if self._ended is not None:
            raise self._ended

    @property
    def full(self) -> bool:
        """The outbox is full: `room` would wait."""
        return not self._room.is_set()

    def ping(self) -> None:
        """Ask for a sign of life: whatever comes then sets `last_inbound`."""
        if self._protocol.state is ConnectionState.OPEN:
            self._say(self._protocol.send(Ping()))

    def _say(self, data: bytes) -> None:
        if not self._waiting and (data := self._pushed(data)) == b"":
            return
        self._outbox.append(data)
        self._waiting += len(data)
        self._some.set()
        if self._waiting > HIGH_WATERMARK and self._room.is_set():
            self._room = trio.Event()

    def _pushed(self, data: bytes) -> bytes:
        """Give data to the socket, if there is one; return what it has not taken."""
        now = trio.current_time()
        if self._socket is None or now - self._pushed_at < BUNCH:
            return data
        self._pushed_at = now
        try:
            sent = os.write(self._socket.fileno(), data)
        except OSError:  # it is full, or broken: `write` will find out
            return data
        self.bytes_out += sent
        return data[sent:]

    async def write(self) -> None:
        """Hand what is said to the stream, until `close` or the end of the connection."""
        try:
            while self._outbox or not self._closing:
                await self._some.wait()
                self._some = trio.Event()
                if not await self._flush():
                    return
        finally:
            self._written.set()

    async def _flush(self) -> bool:
        """Write what there is; return whether the client still takes it."""
        while self._outbox:
            data = memoryview(b"".join(self._outbox))
            self._outbox.clear()
            for start in range(0, len(data), _PIECE):
                if not await self._send_piece(data[start : start + _PIECE]):
                    self._ended = self._ended or SocketEnded(1006, "the client takes no data")
                    self._room.set()
                    return False
            self._waiting -= len(data)
            if self._waiting <= HIGH_WATERMARK:
                self._room.set()
        return True

    async def _send_piece(self, piece: memoryview) -> bool:
        with trio.move_on_after(self._send_timeout):
            try:
                await self._stream.send_all(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return False
            self.bytes_out += len(piece)
            return True
        return False

    async def close(self, code: int, reason: str) -> None:
        """Say what is in the outbox, and close with a handshake where the client takes part. Bounded, and shielded.

        Closing earlier could make TCP reset the connection and throw away what the client has not read yet.
        """
        if self._protocol.state is ConnectionState.OPEN and self._ended is None:
            self._say(self._protocol.send(CloseConnection(code=code, reason=reason[:120])))
        self._closing = True
        self._some.set()
        with trio.move_on_after(_PARTING, shield=True):
            await self._written.wait()
            if self._outbox or self._protocol.state is not ConnectionState.LOCAL_CLOSING:
                return
            try:
                while data := bytes(await self._stream.receive_some(_READ)):
                    self._protocol.receive_data(data)
                    if any(isinstance(event, CloseConnection) for event in self._protocol.events()):
                        return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return


def _size_of(data: str | bytes | bytearray) -> int:
    """Return bytes."""
    return len(data) if not isinstance(data, str) or data.isascii() else len(data.encode())


def framed(text: bytes) -> bytes:
    """Return a text message as one unmasked frame: what wsproto would make of it, in a tenth of its time."""
    size = len(text)
    if size < 126:
        return bytes((_TEXT, size)) + text
    if size < 65536:
        return struct.pack("!BBH", _TEXT, 126, size) + text
    return struct.pack("!BBQ", _TEXT, 127, size) + text

"""The server's side of a WebSocket on one connection: messages in, messages out. Knows no protocol above it.

Theory of operation
    `pool.wire.frame_reader` reads the protocol; this is the loop around it, over any trio stream. One task receives,
    and any number send: what they say is framed at once, in order, and given to the socket on the spot, because to
    wake a task for that costs several times as much. What the socket does not take, and what follows upon another
    message at once, lies in an outbox until `write`, a task of its own, hands it to the stream, all that has gathered
    in one go; so does everything where the stream is no bare socket. Nobody who sends can be interrupted in the
    middle of a frame, therefore.

    The outbox is bounded by those who say `room` after what they have said: past its high watermark that waits, and
    a client that takes nothing for `send_timeout` seconds is given up. Only the latest ping is answered, and at most
    one answer waits in the outbox, so a client that pings and does not read gathers nothing.

    Messages are read one read at a time, by whoever receives, so a client that sends faster than it is served is held
    back by TCP. One read may hold ten thousand frames: they are taken in passes, between which others run. Frames
    that carry nothing are bounded by the second, and messages are paced, see `FrameLimits`.

    Whatever the client does against the protocol is answered with a close frame that says so, and after it what still
    comes is thrown away for a moment, so that TCP does not reset the connection before the client has read it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import trio
from attrs import define, field, frozen

from pool.body_budget import Account, BudgetExceeded
from pool.upgrade import accept_upgrade
from pool.wire.deflate import Deflate
from pool.wire.frame import CLOSE, PING, PONG, TEXT, close_payload, server_frame
from pool.wire.frame_budget import BURST, RATE, FrameBudget
from pool.wire.frame_reader import FrameReader

HIGH_WATERMARK = 1024 * 1024  # bytes that wait in the outbox before `room` waits
BUNCH = 0.002  # s. Messages that come sooner than that one after the other are written together
_PIECE = 256 * 1024  # bytes; each may take the send timeout
_READ = 64 * 1024
TRY_LATER = 1013  # close code (IANA's registry)
_PARTING = 2.0  # s, for the close handshake


class SocketEnded(Exception):  # the end of a connection is not always an error
    """Nothing more can be received or sent. `code` 1006 means that there was no close frame."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".strip())
        self.code, self.reason = code, reason


@frozen(kw_only=True)
class FrameLimits:
    """What one client may send. Over the first two the connection is closed with 1008; over the third it waits."""

    rate: float = RATE  # control frames and small fragments a second
    burst: int = BURST  # of them, saved up
    messages: float = 2000.0  # messages a second, after one second's worth at once


async def accept_websocket(
    stream: trio.abc.Stream,
    raw: bytes,
    *,
    max_message: int,
    send_timeout: float,
    limits: FrameLimits | None = None,
    compress: bool = True,
    headers: Sequence[tuple[bytes, bytes]] = (),
    account: Account | None = None,
) -> WebSocket:
    """Accept an upgrade whose request `raw` begins with; what follows it there is read first.

    Args:
        stream: what the request came on.
        raw: bytes that were read from it.
        max_message: bytes, of one message; over it the connection is closed with 1009.
        send_timeout: s without any progress, after which a client is given up.
        limits: of frames and messages a second.
        compress: use permessage-deflate where the client offers it.
        headers: of the answer.
        account: pays for messages that are not complete; without room for one the connection is closed with 1013.

    Raises:
        UpgradeRefused: the request is no WebSocket handshake; nothing was sent.
        SocketEnded: the client has gone.
    """
    accepted = accept_upgrade(raw, compress=compress, headers=headers)
    limits = limits or FrameLimits()
    deflate = None if accepted.compression is None else Deflate(accepted.compression)
    reader = FrameReader(
        max_message, masked=True, budget=FrameBudget(limits.rate, limits.burst), deflate=deflate
    )
    pace = FrameBudget(limits.messages, limits.messages)
    socket = WebSocket(stream, reader, pace, send_timeout, deflate, accepted.rest, account)
    try:
        await stream.send_all(accepted.answer)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise SocketEnded from None
    return socket


@define(eq=False)
class WebSocket:
    """An accepted connection. Made by `accept_websocket`; `write` has to run as long as it is used."""

    _stream: trio.abc.Stream
    _reader: FrameReader
    _pace: FrameBudget  # of messages
    _send_timeout: float
    _deflate: Deflate | None
    _unread: bytes  # that came with the handshake
    _account: Account | None = None
    last_inbound: float = field(factory=trio.current_time, init=False)  # on trio's clock; pongs count too
    bytes_in: int = field(default=0, init=False)
    bytes_out: int = field(default=0, init=False)
    _incomplete: int = field(default=0, init=False)  # bytes that are paid for
    _owed: float = field(default=0.0, init=False)  # s to wait before the next read
    _outbox: list[bytes] = field(factory=list, init=False)
    _waiting: int = field(default=0, init=False)  # bytes in the outbox, and on their way
    _ended: SocketEnded | None = field(default=None, init=False)
    _some: trio.Event = field(factory=trio.Event, init=False)  # there is something to write
    _room: trio.Event = field(factory=trio.Event, init=False)  # replaced when there is none
    _empty: trio.Event = field(factory=trio.Event, init=False)  # for `written`
    _socket: trio.socket.SocketType | None = field(init=False)  # the stream is nothing else
    _pushed_at: float = field(default=-math.inf, init=False)
    _closing: bool = field(default=False, init=False)
    _close_said: bool = field(default=False, init=False)  # no frame may follow
    _pong_waits: bool = field(default=False, init=False)  # in the outbox
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
        if self._owed:
            await trio.sleep(self._owed)
            self._owed = 0.0
        data, self._unread = self._unread, b""
        while True:
            messages = self._take(data)
            if messages:
                self._owed = self._pace.owed(trio.current_time(), len(messages))
                await trio.lowlevel.checkpoint()
                return messages
            if self._ended is not None:
                raise self._ended
            if self._reader.more:
                await trio.lowlevel.checkpoint()
                data = b""
            else:
                data = await self._receive()

    async def _receive(self) -> bytes:
        """Return what comes next; nothing at the end, which is noted."""
        try:
            data = bytes(await self._stream.receive_some(_READ))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        self.last_inbound = trio.current_time()
        self.bytes_in += len(data)
        if not data:
            self._ended = self._ended or SocketEnded()
        return data

    def _take(self, data: bytes) -> list[str | bytes]:
        """Return the messages that have arrived whole, and see to everything else that has."""
        if self._ended is not None:
            return []
        messages = self._reader.read(data, trio.current_time())
        if self._account is not None and not self._paid(self._account):
            self._say_close(TRY_LATER, "the server holds as much of messages as it may")
            self._ended = SocketEnded(TRY_LATER, "no room for the message")
        self._answer_ping()
        end = self._reader.end
        if end is not None and not messages:  # those before it are answered first
            self._say_close(end.code, end.reason if end.violation else "")
            self._ended = SocketEnded(end.code, end.reason)
        return messages

    def _paid(self, account: Account) -> bool:
        """Pay for what is held of messages that are not complete; False when there is no room for it."""
        more = self._reader.held - self._incomplete
        try:
            if more > 0:
                account.grow(more)
            elif more:
                account.shrink(-more)
        except BudgetExceeded:
            return False
        self._incomplete += more
        return True

    def _answer_ping(self) -> None:
        """Answer the latest ping, unless an answer to one before waits to be written."""
        ping = self._reader.ping
        if ping is not None and not self._pong_waits and not self._close_said:
            self._reader.ping = None
            self._say(server_frame(PONG, ping))
            self._pong_waits = bool(self._outbox)

    def _say_close(self, code: int, reason: str) -> None:
        if not self._close_said:
            self._close_said = True
            self._say(server_frame(CLOSE, close_payload(code, reason)))

    @property
    def compressed(self) -> bool:
        """permessage-deflate was agreed on."""
        return self._deflate is not None

    # Sending.

    def post(self, text: bytes) -> None:
        """Put one message, UTF-8 text, into the outbox, full or not; `room` comes after it.

        Raises:
            SocketEnded: the connection is over.
        """
        if self._ended is not None:
            raise self._ended
        if self._close_said:
            raise SocketEnded
        deflate = self._deflate
        if deflate is None:
            self._say(server_frame(TEXT, text))
        else:
            self._say(server_frame(TEXT, deflate.deflated(text), compressed=True))

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
        if not self._close_said:
            self._say(server_frame(PING, b""))

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
            self._pong_waits = False
            self._answer_ping()
            for start in range(0, len(data), _PIECE):
                if not await self._send_piece(data[start : start + _PIECE]):
                    self._ended = self._ended or SocketEnded(1006, "the client takes no data")
                    self._room.set()
                    self._empty.set()
                    return False
            self._waiting -= len(data)
            if self._waiting <= HIGH_WATERMARK:
                self._room.set()
        self._empty.set()
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

    async def written(self) -> None:
        """Wait until the stream has taken all that was said. Raises like `post`."""
        while self._waiting and self._ended is None:
            self._empty = trio.Event()
            await self._empty.wait()
        await trio.lowlevel.checkpoint()
        if self._ended is not None:
            raise self._ended

    async def break_off(self, part: bytes = b"") -> None:
        """Say these bytes as the last ever, as they are, and wait until all is written. Raises like `post`."""
        if not self._close_said:
            self._close_said = True
            self._say(part)
        await self.written()

    async def close(self, code: int, reason: str, *, patience: float = _PARTING) -> None:
        """Say what is in the outbox, and close with a handshake where the client takes part, in `patience` seconds.

        Shielded.

        Closing earlier could make TCP reset the connection and throw away what the client has not read yet.
        """
        if self._ended is None:
            self._say_close(code, reason)
        self._closing = True
        self._some.set()
        with trio.move_on_after(patience, shield=True):
            await self._written.wait()
            end = self._reader.end
            gone = self._ended is not None and not self._close_said
            if gone or self._outbox or (end is not None and not end.violation):
                return
            data = self._unread
            try:
                while not self._reader.closed_by(data):
                    data = bytes(await self._stream.receive_some(_READ))
                    if not data:
                        return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

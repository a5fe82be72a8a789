"""What lies under the WebSocket library: the transport, metered, with the messages already taken out.

Theory of operation
    The library's own reader drives this stream: it calls `receive_some` whenever it wants bytes, also on an idle
    connection. Each read is parted by a `Sieve`. The messages are given to `take` there and then, in the pass of the
    event loop that read them: waking a task for each read would cost as much as the read. A server that puts very
    much into one read is taken in several passes, so that it holds up nobody else. Where messages come fast, they
    are read in bunches. The library gets what is left of the read, or, when that is nothing, the next one.

    What is sent goes the other way round: messages are framed here, and beside them goes what the library has to
    say, whole frames too. A lock keeps the one out of the middle of the other. After a close frame, nothing may
    follow. The server's pings are answered here, and its close, and a violation of the protocol with the code that
    it asks for: `end` says which. The library is told that the connection was closed; its answer is not sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import trio

from pool.bunching import Bunching
from pool.pauses import Pauses
from pool.wire.frame import CLOSE, PING, PONG, close_payload, control_frame, frame
from pool.wire.frame_reader import End
from pool.wire.sieve import Sieve

FAREWELL = b"\x88"  # first byte of a close frame
PARTING = 1.0  # s, for a close frame to leave that answers the end


class HandshakeLost(Exception):
    """The peer went away, or spoke nonsense, before the upgrade was through."""


class Line(trio.abc.Stream):
    """The transport of one connection, counting bytes and noting when the last ones came in.

    Until the upgrade is through it raises when the connection ends: the library would wait for ever. A send that
    is interrupted leaves half a frame behind, so it takes the transport with it. `max_message` is in bytes,
    `read_interval` in seconds; lines that share their `pauses` read in step.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        max_message: int,
        read_interval: float = 0.0,
        pauses: Pauses | None = None,
    ) -> None:
        self._transport = transport
        self._receive = transport.receive_some
        self._sieve = Sieve(max_message)
        self._bunching = Bunching(read_interval)
        self._pauses = Pauses() if pauses is None else pauses
        self._early: list[str | bytes] = []  # messages that came before anybody took them
        self._take: Callable[[str | bytes], None] = self._early.append
        self.bytes_in = self.bytes_out = 0
        self.upgraded = False
        self._parting = False  # a close frame has been sent
        self._sending = trio.Lock()
        self.last_inbound = trio.current_time()

    def listen(self, take: Callable[[str | bytes], None]) -> None:
        """Give every message to `take`, also those that came before; a binary one is `b""`.

        It must neither wait nor raise.
        """
        self._take = take
        for message in self._early:
            take(message)
        self._early.clear()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        while True:
            if pause := self._bunching.pause(trio.current_time()):
                await self._pauses.pause(pause)
            try:
                data = await self._receive(max_bytes)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._ended()
                raise
            self.bytes_in += len(data)
            self.last_inbound = trio.current_time()
            messages, rest = self._sieve.feed(data, self.last_inbound)
            for message in messages:
                self._take(message)
            if self._sieve.more:
                rest += await self._take_more()
            self._bunching.read(len(messages), self.last_inbound)
            if (said := self._sieve.take_ping()) is not None and not self._parting:
                await self._send_control(PONG, said)
            if (end := self._sieve.end) is not None and not self._parting:
                await self._answer(end)
            if not data:
                self._ended()
            if rest or not data:
                return rest

    @property
    def end(self) -> End | None:
        """How the server has ended the connection; None: it has not, or without a word."""
        return self._sieve.end

    async def _take_more(self) -> bytes:
        """Take the rest of a read that is too much for one pass; return what is for the library."""
        rest = b""
        while self._sieve.more:
            await trio.lowlevel.checkpoint()
            messages, told = self._sieve.feed(b"", trio.current_time())
            for message in messages:
                self._take(message)
            rest += told
        return rest

    async def _answer(self, end: End) -> None:
        """Close because the server did, or must not go on. A server that reads nothing is not waited for."""
        with trio.move_on_after(PARTING):
            await self._send_control(CLOSE, close_payload(end.code, end.reason if end.violation else ""))
        self._parting = True

    async def _send_control(self, kind: int, payload: bytes) -> None:
        async with self._sending:
            if not self._parting:
                self._parting = kind == CLOSE
                await self._send(control_frame(kind, payload, os.urandom(4)))

    async def send_message(self, parts: Sequence[bytes]) -> None:
        """Send one text message, in pieces when it is long. Raises `trio.ClosedResourceError` after a farewell."""
        async with self._sending:
            if self._parting:
                raise trio.ClosedResourceError("closing")
            for piece in frame(parts, sum(map(len, parts)), os.urandom(4)):
                await self._send(piece)

    async def ping(self) -> bool:
        """Send a ping, or return False: a message is on its way, or the farewell has been said."""
        if self._sending.locked() or self._parting:
            return False
        await self._send_control(PING, b"")
        return True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with self._sending:
            if self._parting:
                return  # what the library says to what came after our close
            self._parting = self.upgraded and data[:1] == FAREWELL
            await self._send(data)

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._transport.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._ended()
            raise
        except trio.Cancelled:
            await trio.aclose_forcefully(self._transport)
            raise
        self.bytes_out += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._transport.aclose()
        self._ended()  # before the upgrade: the library closes a stream on which it cannot understand the answer

    async def abandon(self) -> None:
        """Close at once, without a farewell."""
        await trio.aclose_forcefully(self._transport)

    def _ended(self) -> None:
        """Whatever comes now is the library's to say."""
        self._sieve.through = True
        if not self.upgraded:
            raise HandshakeLost from None

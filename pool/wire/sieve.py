"""Parts what a server sends between the pool and the WebSocket library under it.

Theory of operation
    The library makes the connection: the answer to the upgrade is for it, and where that is a refusal, everything
    after it too. From then on the frames are read here. Nearly everything that a Responses server sends is a small
    text message in one unmasked frame, which takes a microsecond; a library written for every case takes ten times
    as long, and hands each message from task to task. And it has no bounds for what a broken or hostile server may
    send: fragments without end, pings by the thousand, many messages in one read.

    So after the upgrade the library is told nothing but that the connection ends, with a close frame that is made for
    it. Pings are answered by the caller (see `pool.line`), and so is the `end`, whether the server closes or violates
    the protocol: the library knows fewer close codes than there are. Pongs are dropped: that something came is all
    that they say.
"""

from __future__ import annotations

from pool.wire.frame import CLOSE, close_payload, server_frame
from pool.wire.frame_reader import End, FrameReader

HEAD_END = b"\r\n\r\n"
HEAD_LIMIT = 64 * 1024  # bytes; an answer that has not ended by then is the library's problem
UPGRADED = b"HTTP/1.1 101"
CLOSED = server_frame(CLOSE, close_payload(1000, ""))  # how the library is told


class Sieve:
    """Parts what comes in on one connection, from the answer to the upgrade on.

    `limit` is the size in bytes of the longest message.
    """

    __slots__ = ("_head", "_reader", "through")

    def __init__(self, limit: int) -> None:
        self._reader = FrameReader(limit, masked=False)
        self._head: bytearray | None = bytearray()  # of the answer; None when it is over
        self.through = False  # everything is for the library

    def feed(self, data: bytes | bytearray, now: float) -> tuple[list[str | bytes], bytes]:
        """Return the messages that are complete now, and what is for the library. Bounded: see `more`.

        A binary message is `b""`. `now` is in seconds.
        """
        head = b""
        if self._head is not None and not self.through:
            head, data = self._split_head(data)
        if self.through:
            return [], head + data
        messages = self._reader.read(data, now)
        if self._reader.end is None:
            return messages, head
        self.through = True  # the library reads nothing after a close
        return messages, head + CLOSED

    def take_ping(self) -> bytes | None:
        """Return what the latest ping says, once: that is to be answered."""
        ping, self._reader.ping = self._reader.ping, None
        return ping

    @property
    def more(self) -> bool:
        """What one pass may do is done, and there is more: let others run, and `feed` nothing."""
        return self._reader.more and not self.through

    @property
    def end(self) -> End | None:
        """The server's close, or what it did that no server may, with the code to close with."""
        return self._reader.end

    def _split_head(self, data: bytes | bytearray) -> tuple[bytes, bytes]:
        """Return what belongs to the answer to the upgrade, and what comes after it."""
        head = self._head
        assert head is not None
        known = len(head)
        head += data
        end = head.find(HEAD_END, max(0, known - len(HEAD_END)))
        if end < 0:
            self.through = len(head) > HEAD_LIMIT
            return bytes(data), b""
        self._head = None
        self.through = not head.startswith(UPGRADED)
        cut = end + len(HEAD_END) - known
        return bytes(data[:cut]), bytes(data[cut:])

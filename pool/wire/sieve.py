"""Takes the plain messages out of a server's bytes, so that only the rest has to go through a WebSocket library.

Theory of operation
    Nearly everything that a Responses server sends is a small text message in one unmasked frame: two to ten
    bytes of header, then the text. Cutting those out takes a microsecond each; a library written for every case
    takes ten times as long, and hands each message from task to task. So `feed` returns the messages, and beside
    them, in their order, the bytes that are for the library: the answer to the upgrade, and pings. Pongs are dropped:
    that something came is all that they say.

    What is rare is the library's for good: from the first frame that is neither a plain text message nor a ping
    or pong (a fragment, a binary message, a close, a message over the limit, an extension's bits, text that is
    not UTF-8, nonsense) everything goes `through` to it, that frame included. It alone judges what is right and
    answers as the protocol wants, and no message can overtake another.
"""

from __future__ import annotations

HEAD_END = b"\r\n\r\n"
HEAD_LIMIT = 64 * 1024  # bytes; an answer that has not ended by then is the library's problem
UPGRADED = b"HTTP/1.1 101"
TEXT, PING, PONG = 0x81, 0x89, 0x8A  # first byte of a frame: the last of its message, no extension
SMALL, MEDIUM = 126, 65_536  # a length below is in the second byte itself, or in two more; else in eight
MASKED = 0x80  # a bit of the second byte; only clients set it


class Sieve:
    """Parts what comes in on one connection, from the answer to the upgrade on.

    `limit` is the size in bytes of the longest message that is taken out.
    """

    __slots__ = ("_head", "_held", "_limit", "_wanted", "through")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head: bytearray | None = bytearray()  # of the answer; None when it is over
        self._held = bytearray()  # a frame that is not complete
        self._wanted = 0  # bytes it needs before it is worth another look
        self.through = False

    def feed(self, data: bytes | bytearray) -> tuple[list[str], bytes]:
        """Return the messages that are complete now, and the bytes for the library."""
        if self.through:
            return [], bytes(data)
        if self._head is not None:
            head, data = self._split_head(data)
            messages, rest = self._part(data)
            return messages, head + rest
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return [], b""
            data, self._held = self._held, bytearray()
        return self._part(data)

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

    def _part(self, data: bytes | bytearray) -> tuple[list[str], bytes]:
        """Walk over the frames; `data` begins with one."""
        messages: list[str] = []
        rest = b""
        at, size, self._wanted = 0, len(data), 0
        while not self.through and at + 2 <= size:
            kind, length = data[at], data[at + 1]
            start = at + 2
            if SMALL <= length < MASKED:
                least, start = (SMALL, start + 2) if length == SMALL else (MEDIUM, start + 8)
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
                if length < least:
                    self.through = True  # there is a shorter way to say it, and only that is allowed
                    break
            elif length >= MASKED:
                self.through = True
                break
            end = start + length
            if kind == TEXT and length <= self._limit:
                if end > size:
                    self._wanted = end - at
                    break
                try:
                    messages.append(data[start:end].decode())
                except UnicodeDecodeError:
                    self.through = True
                    break
            elif kind in (PING, PONG) and length < SMALL:
                if end > size:
                    break
                if kind == PING:
                    rest += data[at:end]
            else:
                self.through = True
                break
            at = end
        if self.through:
            rest += data[at:]
        elif at < size:
            self._held += data[at:]
        return messages, rest

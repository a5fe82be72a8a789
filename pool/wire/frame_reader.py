"""Reads the frames of one direction of a WebSocket (RFC 6455, and 7692 where it was agreed on). Pure.

Theory of operation
    `read` takes the bytes of one read from the network and returns the messages that are complete with them, in
    order. What else there is to know stands in attributes: the latest `ping`, which alone need be answered (5.5.3);
    the `end`, which is the peer's close frame or the close code that a violation of the protocol asks for; and
    `more`, which says that the bounds of one pass are used up before the bytes are: then the caller lets others run,
    and calls again with nothing. Messages that came before a violation are still returned.

    Nearly everything is a small text message in one frame, so that case comes first and costs about a microsecond.
    A long frame is unmasked and decoded as it comes in, never all at once; text is judged as early as possible, so
    that a message that is no UTF-8 is not waited for.

    Bounded are the size of a message (by the header, before any of it is read, or while it is inflated), the frames
    and the inflated bytes of a pass, and by the budget what carries little or nothing.

    After the end nothing is read any more; `closed_by` only looks for the close frame in what still comes.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

from attrs import define, field, frozen

from pool.wire.deflate import Deflate, NotDeflate
from pool.wire.frame import CLOSE, NO_STATUS, PING, PONG, TEXT, unmasked
from pool.wire.frame_budget import FrameBudget

PASS_STEPS = (
    256  # in one pass: whole frames, or parts of a long one; a few hundred microseconds of the smallest
)
PASS_BYTES = 256 * 1024  # bytes inflated in one pass

PROTOCOL_ERROR, NOT_UTF8, POLICY, TOO_BIG = 1002, 1007, 1008, 1009

_PLAIN = 0x81  # first byte of a text message in one frame
_MASKED = 0x80  # of the second
_FIN, _COMPRESSED, _RESERVED, _CONTROL = 0x80, 0x40, 0x30, 0x08
_CONTINUATION, _BINARY = 0, 2
_WHOLE = 16 * 1024  # bytes; a frame of no more is taken when it is complete, a longer one as it comes
_DECODER = codecs.getincrementaldecoder("utf-8")


@frozen
class End:
    """Why nothing more is read: the peer's close, or a violation and the close code that it asks for."""

    code: int
    reason: str
    violation: bool = False


class _Violation(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@define(eq=False)
class FrameReader:
    """The frames of one peer: of a client, which masks them, or of a server, which must not."""

    max_message: int  # bytes
    masked: bool
    budget: FrameBudget = field(factory=FrameBudget)
    deflate: Deflate | None = None
    end: End | None = field(default=None, init=False)
    ping: bytes | None = field(default=None, init=False)  # the payload of the latest; its reader resets it
    more: bool = field(default=False, init=False)
    _held: bytes | bytearray = field(default=b"", init=False)  # what has not been looked at
    _wanted: int = field(default=0, init=False)  # bytes of it that are worth a look
    # The message under way
    _kind: int = field(default=0, init=False)  # 0: none
    _inflates: bool = field(default=False, init=False)
    _size: int = field(default=0, init=False)  # bytes of it so far, inflated
    _wire_size: int = field(default=0, init=False)  # and as they came
    _parts: list[str] = field(factory=list, init=False)
    _decode: Callable[[bytes | bytearray, bool], str] | None = field(default=None, init=False)
    # The frame under way
    _left: int | None = field(
        default=None, init=False
    )  # bytes of its payload that have not come; None: no frame
    _final: bool = field(default=False, init=False)
    _key: bytes = field(default=b"", init=False)  # turned to the next byte
    _tail: bool = field(default=False, init=False)  # the inflater has been given the end of the message

    @property
    def held(self) -> int:
        """Bytes of messages that are not complete."""
        return len(self._held) + (self._size if self._kind else 0)

    def read(self, data: bytes | bytearray, now: float) -> list[str | bytes]:
        """Take what has come, or with nothing go on with what is left; return complete messages.

        Binary messages are returned as `b""`: nobody wants what they say.
        """
        messages: list[str | bytes] = []
        self.more = False
        if self.end is not None:
            return messages
        if self._held:
            data = self._held + data
            if len(data) < self._wanted:
                self._held = data
                return messages
        self._held = data[self._walk(data, messages, now) :]
        return messages

    def _walk(self, data: bytes | bytearray, messages: list[str | bytes], now: float) -> int:
        """Go through the frames, and return how many bytes are done with."""
        at, size, masked, limit = 0, len(data), self.masked, self.max_message
        steps, inflated = PASS_STEPS, 0
        self._wanted = 0
        within, idle = self._left is not None, not self._kind
        try:
            while steps:
                steps -= 1
                if within:
                    if inflated >= PASS_BYTES:
                        break
                    at, grown = self._go_on(data, at, messages)
                    if at < 0:
                        return size
                    inflated += grown
                    within, idle = self._left is not None, not self._kind
                    continue
                if at + 2 > size:
                    return at
                first, length = data[at], data[at + 1]
                start = at + 2
                if (length >= _MASKED) is not masked:
                    raise _Violation(PROTOCOL_ERROR, f"a frame is {'not ' * masked}masked")
                if masked:
                    length &= 0x7F
                if length >= 126:
                    least, start = (126, start + 2) if length == 126 else (65_536, start + 8)
                    if first & _CONTROL:
                        self._check(first, length)
                    if start > size:
                        return at
                    length = int.from_bytes(data[at + 2 : start], "big")
                    if length < least or length >> 63:
                        raise _Violation(PROTOCOL_ERROR, "a frame's length is not written as it must be")
                if masked:
                    start += 4
                end = start + length
                if first == _PLAIN and idle and length <= limit:
                    if end <= size:
                        payload = data[start:end]
                        if masked:
                            payload = unmasked(payload, data[start - 4 : start])
                        try:
                            messages.append(payload.decode())
                        except UnicodeDecodeError:
                            raise _Violation(NOT_UTF8, "a text message is not UTF-8") from None
                        at = end
                        continue
                    if length <= _WHOLE:
                        self._wanted = end - at
                        return at
                self._check(first, length)
                if first & _CONTROL:
                    if end > size:
                        self._wanted = end - at
                        return at
                    if first & 0x0F != CLOSE and not self.budget.take(now):
                        raise _Violation(POLICY, "too many control frames")
                    payload = data[start:end]
                    self._control(
                        first & 0x0F, unmasked(payload, data[start - 4 : start]) if masked else payload
                    )
                    if self.end is not None:
                        return end
                    at = end
                    continue
                if start > size:
                    return at
                if not (first & _FIN and first & 0x0F) and not self.budget.take(now, length):
                    raise _Violation(POLICY, "too many small fragments")
                self._begin(first, length)
                self._key = bytes(data[start - 4 : start]) if masked else b""
                at, within = start, True
        except _Violation as error:
            self.end = End(error.code, error.reason, violation=True)
            return at
        self.more = True
        return at

    def _check(self, first: int, length: int) -> None:
        """Judge what the beginning of a frame's header says."""
        kind = first & 0x0F
        if first & _RESERVED or (
            first & _COMPRESSED and (self.deflate is None or kind not in (TEXT, _BINARY))
        ):
            raise _Violation(PROTOCOL_ERROR, "a reserved bit is set")
        if kind & _CONTROL:
            if kind > PONG:
                raise _Violation(PROTOCOL_ERROR, f"there is no frame of kind {kind}")
            if not first & _FIN:
                raise _Violation(PROTOCOL_ERROR, "a control frame is in fragments")
            if length > 125:
                raise _Violation(PROTOCOL_ERROR, "a control frame has more than 125 bytes")
        elif kind > _BINARY:
            raise _Violation(PROTOCOL_ERROR, f"there is no frame of kind {kind}")
        elif kind == _CONTINUATION and not self._kind:
            raise _Violation(PROTOCOL_ERROR, "there is no message to continue")
        elif kind != _CONTINUATION and self._kind:
            raise _Violation(PROTOCOL_ERROR, "a message begins within another one")

    def _control(self, kind: int, payload: bytes | bytearray) -> None:
        if kind == PING:
            self.ping = bytes(payload)
        elif kind == CLOSE:
            self.end = _close(payload)

    def _begin(self, first: int, length: int) -> None:
        """Begin with a data frame, which is in order by itself."""
        kind = first & 0x0F
        if kind != _CONTINUATION:
            self._kind, self._inflates = kind, bool(first & _COMPRESSED)
            self._size = self._wire_size = 0
            self._parts, self._decode = [], _DECODER().decode if kind == TEXT else None
        self._wire_size += length
        # Compressed, a message is longer than it is only by the heads of its blocks.
        limit = self.max_message if not self._inflates else self.max_message + self.max_message // 64 + 1024
        if self._wire_size > limit:
            raise self._too_big()
        self._left, self._final, self._tail = length, bool(first & _FIN), False

    def _go_on(self, data: bytes | bytearray, at: int, messages: list[str | bytes]) -> tuple[int, int]:
        """Take some of a frame's payload; return where to go on, -1 if more has to come, and the bytes inflated."""
        deflate = self.deflate if self._inflates else None
        if deflate is not None and deflate.pending:
            return at, self._inflate(deflate)
        assert self._left is not None
        if self._left:
            chunk = data[at : at + self._left]
            if not chunk:
                return -1, 0
            if self.masked:
                turn = len(chunk) & 3
                chunk, self._key = unmasked(chunk, self._key), self._key[turn:] + self._key[:turn]
            if deflate is None:
                self._add(chunk)
            else:
                deflate.feed(chunk)
            self._left -= len(chunk)
            return at + len(chunk), 0
        if self._final and deflate is not None and not self._tail:
            self._tail = True
            deflate.finish()
            return at, 0
        self._left = None
        if self._final:
            if deflate is not None:
                deflate.ended()
            messages.append(self._finished())
        return at, 0

    def _inflate(self, deflate: Deflate) -> int:
        try:
            piece = deflate.piece()
        except NotDeflate:
            raise _Violation(NOT_UTF8, "a compressed message is not deflate data") from None
        self._add(piece)
        return len(piece)

    def _add(self, piece: bytes | bytearray) -> None:
        self._size += len(piece)
        if self._size > self.max_message:
            raise self._too_big()
        if self._decode is not None:
            try:
                self._parts.append(self._decode(piece, False))
            except UnicodeDecodeError:
                raise _Violation(NOT_UTF8, "a text message is not UTF-8") from None

    def _finished(self) -> str | bytes:
        """Return the message under way, which is complete."""
        self._kind = 0
        if self._decode is None:
            return b""
        try:
            self._decode(b"", True)
        except UnicodeDecodeError:
            raise _Violation(NOT_UTF8, "a text message is not UTF-8") from None
        message = "".join(self._parts)
        self._parts, self._decode = [], None
        return message

    def _too_big(self) -> _Violation:
        return _Violation(TOO_BIG, f"a message may have {self.max_message} bytes")

    def closed_by(self, data: bytes | bytearray) -> bool:
        """Throw frames away unread, after our own close; return whether the peer's close is among them."""
        if self._held:
            data = self._held + data
        at, size, left = 0, len(data), self._left or 0
        while True:
            if left:
                taken = min(left, size - at)
                at, left = at + taken, left - taken
                if left:
                    break
            if at + 2 > size:
                break
            length = data[at + 1] & 0x7F
            start = at + 2 + {126: 2, 127: 8}.get(length, 0)
            if length >= 126:
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            if data[at] & 0x0F == CLOSE:
                return True
            left = length + 4 * (data[at + 1] >> 7)
            at = start
        self._held, self._left = bytes(data[at:]), left
        return False


def _close(payload: bytes | bytearray) -> End:
    """Return what a close frame says. Raises `_Violation` for one that says it wrongly."""
    if not payload:
        return End(NO_STATUS, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _CODES or 3000 <= code <= 4999):
        raise _Violation(PROTOCOL_ERROR, "a close frame has no valid code")
    try:
        return End(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise _Violation(NOT_UTF8, "the reason of a close is not UTF-8") from None


# Those that may be sent, by the registry: https://www.iana.org/assignments/websocket
_CODES = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})

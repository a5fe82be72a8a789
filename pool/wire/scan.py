"""Takes a long JSON object apart in slices: `codec.split_object`, for a text that takes longer than anybody may wait.

Theory of operation
    A JSON library reads a text in one go: 64 MB take it a tenth of a second or, where they are dense, much longer,
    and nothing else runs in the process meanwhile. So a long text is walked through here, with a stack of what is
    open, and with a pause every millisecond or so. The walk is strict: it accepts what RFC 8259 does and no more.

    A regular expression takes as many values as follow each other in a window of the text, with whatever is nested in
    them a few levels deep. It is possessive throughout, so it never goes back; what it begins to read and cannot
    finish is read again from the next bracket, at most once for each of those levels. So the work is proportional to
    the text. What is nested deeper, or is longer than a window, is taken bracket by bracket; that costs a microsecond
    each, so their number is bounded, and so is their depth. A string that is longer than a window is taken piece by
    piece, and noted, because whoever walks through an item wants to know (see `scheduler.gateway.marks`).
"""

from __future__ import annotations

import codecs
import re

from attrs import define, field, frozen

from pool.wire.peek import whole
from pool.wire.slices import SLICE, Meter, Sliced

WINDOW = 16_384  # bytes, looked at in one step
_LEAST_WINDOW = 1024
LONG = 65_536  # bytes of a string, as it is written, from which on it is long
DEEPEST = 512  # brackets that are open at a time; msgspec takes a thousand
SHORT = 1024 * 1024  # bytes that a JSON library skips in 2 ms, whatever they are
_FEW = 50_000  # commas
_SHORTEST = 128 * 1024  # bytes, that have no more of them
LONGEST_NAME = 1024  # bytes, of a member of the object itself
MOST_MEMBERS = 1000  # of that
MOST_STEPS = 500_000  # brackets and names that were taken singly; 20,000 items have a tenth of that

_WS = rb"[ \t\n\r]*+"
_ESCAPE = (
    rb'\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}'
    rb"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_INSIDE = rb'[^"\\\x00-\x1f]*+(?:' + _ESCAPE + rb'[^"\\\x00-\x1f]*+)*+'
_STRING = b'"' + _INSIDE + b'"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+"
_SCALAR = _STRING + b"|" + _NUMBER + b"|true|false|null"
_LEVELS = 4  # an item, its content, a part, its annotations


def _nested(levels: int) -> bytes:
    """Return the expression of a value with so many levels of brackets."""
    value = _SCALAR
    for _ in range(levels):
        more = b"(?:" + value + b")" + _WS
        array = rb"\[(?:" + _WS + more + rb"(?:,(?!" + _WS + rb"\])|(?=\])))*+" + _WS + rb"\]"
        member = _STRING + _WS + b":" + _WS + more
        mapping = rb"\{(?:" + _WS + member + rb"(?:,(?!" + _WS + rb"\})|(?=\})))*+" + _WS + rb"\}"
        value = _SCALAR + b"|" + array + b"|" + mapping
    return b"(?>" + value + b")"


_VALUE_TEXT = _nested(_LEVELS)
_space = re.compile(_WS).match
_inside = re.compile(_INSIDE).match
_value = re.compile(_VALUE_TEXT).match
_name = re.compile(_STRING + _WS + b":").match
_elements = re.compile(b"(?:" + _WS + _VALUE_TEXT + _WS + b",)*+").match
_members = re.compile(b"(?:" + _WS + _STRING + _WS + b":" + _WS + _VALUE_TEXT + _WS + b",)*+").match

_STEP, _BYTE, _PLAIN_BYTE, _CHECKED = 1500.0, 10.0, 2.0, 1.0  # units of work
_VALUE, _FIRST_VALUE, _NAME, _FIRST_NAME, _COLON, _AFTER = range(6)  # what may come next
_QUOTE, _COMMA, _OPEN, _CLOSE, _OPEN_ARRAY, _CLOSE_ARRAY = b'",{}[]'
_DIGITS = b"-0123456789"
_PIECE = 64 * 1024  # bytes whose encoding is checked at a time: more would be fresh memory each time


class Excess(ValueError):
    """There is more of something than there may be. `param` is of what, where it has a name."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@frozen
class Part:
    """Where a value stands in the text; of the array that was asked for, where its elements do."""

    start: int
    end: int
    elements: list[tuple[int, int]] | None = None


def is_short(text: bytes) -> bool:
    """Whether a JSON library takes a text apart in a few milliseconds, into few enough pieces."""
    return len(text) <= _SHORTEST or (len(text) <= SHORT and text.count(b",") <= _FEW)


def outline(text: bytes, inside: str | None = None, most: int = 0) -> Sliced[dict[str, Part]]:
    """Say where the members of an object are, and the elements of the one that is called `inside`, if it is an array.

    A name that is said twice counts once, the last time.

    Raises:
        Excess: those are more than `most`, or something else is beyond reason.
        ValueError: it is no JSON object, or no UTF-8.
    """
    yield from _checked(text)
    walk = _Walk(text, members=True, name=inside, most=most)
    yield from walk.run()
    return walk.parts


def long_strings(text: bytes) -> Sliced[list[tuple[int, int]]]:
    """Say where in an object the strings are that are `LONG`, without their quotes.

    Names do not count as strings.

    Raises:
        ValueError: as `outline`.
    """
    yield from _checked(text)
    walk = _Walk(text)
    yield from walk.run()
    return walk.long


def complete(text: bytes, start: int, end: int) -> int:
    """Return how far before `end` the inside of a string can be cut: between characters, and not in an escape."""
    found = _inside(text, start, end)
    assert found is not None
    cut = found.end()
    while cut > start and cut < len(text) and text[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def _checked(text: bytes) -> Sliced[None]:
    """Raise `ValueError` where the text is no UTF-8."""
    decoder, meter, view = codecs.getincrementaldecoder("utf-8")(), Meter(), memoryview(text)
    for start in range(0, len(text), _PIECE):
        decoder.decode(view[start : start + _PIECE])
        if meter.full(_PIECE * _CHECKED):
            yield
    decoder.decode(b"", final=True)


@define(eq=False)
class _Walk:
    """One walk through a text.

    `members`: where they are is wanted. `name` is that of the one whose elements are, `most` how many it may have.
    """

    text: bytes
    members: bool = False
    name: str | None = None
    most: int = 0
    parts: dict[str, Part] = field(factory=dict, init=False)
    long: list[tuple[int, int]] = field(factory=list, init=False)
    steps: int = field(default=0, init=False)
    _used: float = field(default=0.0, init=False)
    _window: int = field(factory=lambda: WINDOW, init=False)  # for what begins with a bracket
    _at: int = field(default=0, init=False)
    _open: bytearray = field(factory=bytearray, init=False)  # the brackets, as they were opened
    _next: int = field(default=_VALUE, init=False)
    _member: str = field(default="", init=False)  # of the outermost object, in which it is
    _began: list[int] = field(factory=list, init=False)  # where the values around it did that are noted
    _elements: list[tuple[int, int]] | None = field(default=None, init=False)  # of the array that is wanted

    def run(self) -> Sliced[None]:
        """Walk to the end."""
        if self._look() != _OPEN:
            raise ValueError("it is no JSON object")
        while True:
            self.steps += 1
            self._used += _STEP
            if self._used > SLICE:
                self._used = 0.0
                yield
                if self.steps > MOST_STEPS:
                    raise Excess(f"It has more than {MOST_STEPS} brackets and names.")
            start = self._at
            self._run()
            byte = self._look()
            if byte is None:
                if self._next == _AFTER and not self._open:
                    return
                raise ValueError("it breaks off")
            string = self._step(byte) if byte >= 0 else None
            self._used += (self._at - start) * _BYTE
            if string is not None:
                yield from self._long_string(string)

    def _look(self) -> int | None:
        """Return the next byte that is no space; -1 when there are more spaces than fit a window."""
        found = _space(self.text, self._at, self._at + WINDOW)
        assert found is not None
        full = found.end() - self._at == WINDOW
        self._at = found.end()
        if full:
            return -1
        return self.text[self._at] if self._at < len(self.text) else None

    @property
    def _wanted(self) -> bool:
        """Here the value of the member begins whose elements are wanted."""
        return self.name is not None and len(self._open) == 1 and self._member == self.name

    @property
    def _noted(self) -> bool:
        """Where the values are, is wanted at this depth."""
        depth = len(self._open)
        return depth <= 1 or (depth == 2 and self._elements is not None)

    def _run(self) -> None:
        """Take as many values as follow each other."""
        if self._next in (_AFTER, _COLON) or (self.members and self._noted):
            return
        if self._next in (_VALUE, _FIRST_VALUE) and self._open[-1:] != b"[":
            return
        take = _members if self._next in (_NAME, _FIRST_NAME) else _elements
        found = take(self.text, self._at, self._at + self._window)
        assert found is not None
        self._tried(found.end() > self._at)
        if found.end() > self._at:
            self._at = found.end()
            self._next = _NAME if take is _members else _VALUE

    def _tried(self, well: bool) -> None:
        """Look at less after a window that held nothing whole, so that little is read again; else at more."""
        if well:
            self._window = min(2 * self._window, WINDOW)
        else:
            self._used += self._window * _BYTE / 2
            self._window = max(self._window // 4, _LEAST_WINDOW)

    def _step(self, byte: int) -> int | None:
        """Take what begins with this byte; of a string that does not fit a window, return where it begins."""
        wanted = self._next
        if wanted == _AFTER:
            self._after(byte)
        elif wanted in (_NAME, _FIRST_NAME):
            if byte == _CLOSE and wanted == _FIRST_NAME:
                self._closed()
            elif byte != _QUOTE:
                raise ValueError("a name is missing")
            elif (found := _name(self.text, self._at, self._at + WINDOW)) is not None:
                self._named(self._at, self.text.rindex(b'"', self._at, found.end()) + 1)
                self._at, self._next = found.end(), _VALUE
            else:
                return self._at
        elif wanted == _COLON:
            if byte != ord(":"):
                raise ValueError("a colon is missing")
            self._at, self._next = self._at + 1, _VALUE
        elif byte == _CLOSE_ARRAY and wanted == _FIRST_VALUE:
            self._closed()
        elif byte in (_OPEN, _OPEN_ARRAY) and (not self._open or self._wanted):
            self._opened(byte)
        else:
            return self._whole(byte)
        return None

    def _whole(self, byte: int) -> int | None:
        """Take a value that fits a window and is not nested deeply; else the bracket that it begins with."""
        nested = byte in (_OPEN, _OPEN_ARRAY)
        found = _value(self.text, self._at, self._at + (self._window if nested else WINDOW))
        if nested:
            self._tried(found is not None)
        if found is not None and (found.end() - self._at < WINDOW or byte not in _DIGITS):
            self._ended(self._at, found.end())
        elif byte == _QUOTE:
            return self._at
        elif nested:
            self._opened(byte)
        else:
            raise ValueError("a value is missing")
        return None

    def _after(self, byte: int) -> None:
        if not self._open:
            raise ValueError("something follows the object")
        inner = self._open[-1]
        if byte == _COMMA:
            self._at += 1
            self._next = _NAME if inner == _OPEN else _VALUE
        elif byte == inner + 2:  # as the brackets stand in ASCII
            self._closed()
        else:
            raise ValueError("a comma is missing")

    def _opened(self, byte: int) -> None:
        depth = len(self._open)
        if depth >= DEEPEST:
            raise Excess(f"It is nested more than {DEEPEST} deep.")
        if depth < 2 or (depth == 2 and self._elements is not None):
            self._began.append(self._at)
        if depth == 1 and byte == _OPEN_ARRAY and self._member == self.name:
            self._elements = []
        self._open.append(byte)
        self._at += 1
        self._next = _FIRST_NAME if byte == _OPEN else _FIRST_VALUE

    def _closed(self) -> None:
        self._open.pop()
        depth = len(self._open)
        if depth < 2 or (depth == 2 and self._elements is not None):
            self._ended(self._began.pop(), self._at + 1)
        else:
            self._at += 1
            self._next = _AFTER

    def _ended(self, start: int, end: int) -> None:
        """A value has ended."""
        self._at, self._next = end, _AFTER
        depth = len(self._open)
        if depth == 1 and self.members:
            self.parts[self._member] = Part(start, end, self._elements)
            self._elements = None
        elif depth == 2 and self._elements is not None:
            self._elements.append((start, end))
            if len(self._elements) > self.most:
                raise Excess(
                    f"'{self.name}' has over {self.most} elements; it may have {self.most}.", self.name
                )

    def _named(self, start: int, end: int) -> None:
        if len(self._open) != 1 or not self.members:
            return
        if end - start > LONGEST_NAME:
            raise Excess(f"A parameter's name is over {LONGEST_NAME} bytes.")
        if len(self.parts) > MOST_MEMBERS:
            raise Excess(f"It has more than {MOST_MEMBERS} parameters.")
        self._member = whole(self.text[start:end])

    def _long_string(self, start: int) -> Sliced[None]:
        """Take a string that does not fit a window; or find that it is none."""
        text, at = self.text, start + 1
        while True:
            found = _inside(text, at, at + WINDOW)
            assert found is not None
            self._used += (found.end() - at) * _PLAIN_BYTE
            if self._used > SLICE:
                self._used = 0.0
                yield
            if text[found.end() : found.end() + 1] == b'"':
                break
            if found.end() == at:
                raise ValueError("a string breaks off, or holds what no string may")
            at = found.end()
        end = found.end() + 1
        if self._next in (_NAME, _FIRST_NAME):
            self._named(start, end)
            self._at, self._next = end, _COLON
            return
        if end - start - 2 >= LONG:
            self.long.append((start + 1, end - 1))
        self._ended(start, end)

"""Reads of a message what every message is asked for, and leaves the rest until somebody asks.

Theory of operation
    Three events of each response hold all of it as it stands: its instructions and its tools, tens of kilobytes that
    the client has sent itself. Building objects for them took a quarter of a turn's time. So a message is read by
    `peek`, which builds what warmline acts on and only checks the syntax of what it skips: the type, the lane, and of
    a response its id, status, output, usage and what went wrong. The text is kept, and everything else is read from
    it when it is first asked for (`ServerEvent.payload`, `Snapshot`).

    A message that is not of that shape is read whole, and judged then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

whole: Callable[[str | bytes], Any] = msgspec.json.Decoder().decode
"""Parse JSON. Raises `ValueError` (with the byte offset) for anything that is not."""


class Shell(msgspec.Struct, gc=False):
    """What is read of a response."""

    id: str
    status: str | UnsetType | None = UNSET
    output: list[dict[str, Any]] | UnsetType | None = UNSET
    usage: dict[str, Any] | UnsetType | None = UNSET
    error: dict[str, Any] | UnsetType | None = UNSET
    incomplete_details: dict[str, Any] | UnsetType | None = UNSET


class Peek(msgspec.Struct, gc=False):
    """What is read of a message."""

    type: str
    stream_id: str | None = None
    response: Shell | None = None


_READ = frozenset(Shell.__struct_fields__)
_decode: Callable[[str | bytes], Peek] = msgspec.json.Decoder(Peek).decode


def peek(text: str | bytes) -> Peek | None:
    """Read a message; None when it has to be read whole, to see what is wrong or unusual about it."""
    try:
        return _decode(text)
    except (ValueError, RecursionError):
        return None


# Any escape, or a pair of them; so that what follows a backslash that is itself escaped is not taken for one
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|u[dD][c-fC-F][0-9a-fA-F]{2}|.)"
)


def mended(text: str) -> str:
    """Return JSON in which half a surrogate pair is U+FFFD: a server that cuts a text in two may part an emoji."""

    def mend(found: re.Match[str]) -> str:
        half = len(found[0]) > 2 and found[1] is None
        return "\\ufffd" if half else found[0]

    return _ESCAPE.sub(mend, text)


class Snapshot(Mapping[str, Any]):
    """A response as one message holds it: like the parsed object, but what is seldom wanted is parsed on demand."""

    __slots__ = ("_shell", "_text", "_whole")

    def __init__(self, shell: Shell, text: str | bytes) -> None:
        self._shell = shell
        self._text = text
        self._whole: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        if name not in _READ:
            return self.whole[name]
        value = getattr(self._shell, name)
        if value is UNSET:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.whole)

    def __len__(self) -> int:
        return len(self.whole)

    def __repr__(self) -> str:
        return f"<response {self._shell.id} {self._shell.status or ''}>"

    @property
    def whole(self) -> dict[str, Any]:
        """All of it, as parsed JSON."""
        if self._whole is None:
            self._whole = whole(self._text)["response"]
        return self._whole

"""permessage-deflate (RFC 7692) on the server's side: what is agreed on, and the streams of both directions. Pure.

Theory of operation
    A client offers the extension in as many variants as it likes, best first, and the server takes the first that it
    can serve. An offer with a parameter that is unknown, named twice or out of range is declined, as the RFC wants;
    a header that does not even follow the grammar offers nothing. Declining never fails the upgrade: the connection
    goes on without compression.

    What comes in is inflated in pieces of at most `PIECE` bytes, so that neither the memory nor the time of one step
    depends on what a few compressed bytes unfold to: the caller adds up and stops at its limit. Control frames never
    pass through here; only the bytes of a message do, and nothing but its end resets anything.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from attrs import define, field, frozen

NAME = "permessage-deflate"
PIECE = 64 * 1024  # bytes that are inflated in one step
TAIL = b"\x00\x00\xff\xff"  # the end of a flush, which is left out of a message
WIDEST = 15  # bits of a window: 32 KiB
_LONGEST = 2048  # characters; clients need fewer than 100
_NARROWEST = 9  # zlib can make nothing for a window of 8 bits

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'\s*;\s*({_TOKEN})(?:\s*=\s*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?')
_EXTENSION = re.compile(rf"\s*({_TOKEN})")
_BITS = re.compile(r"[89]|1[0-5]")


class NotDeflate(Exception):
    """The bytes are no deflate stream."""


@frozen(kw_only=True)
class Agreed:
    """The terms of one connection. Window sizes are in bits; None: not negotiated, which means `WIDEST`."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    @property
    def header(self) -> str:
        """What the answer to the upgrade says in `Sec-WebSocket-Extensions`."""
        flags = [
            name
            for name in ("server_no_context_takeover", "client_no_context_takeover")
            if getattr(self, name)
        ]
        bits = [
            f"{name}={value}"
            for name in ("server_max_window_bits", "client_max_window_bits")
            if (value := getattr(self, name)) is not None
        ]
        return "; ".join([NAME, *flags, *bits])


def agree(offers: str) -> Agreed | None:
    """Return the terms of the first offer in a `Sec-WebSocket-Extensions` header that can be served, if one can."""
    if len(offers) > _LONGEST:
        return None
    try:
        for name, parameters in _parsed(offers):
            agreed = _served(parameters) if name == NAME else None
            if agreed is not None:
                return agreed
    except ValueError:
        return None
    return None


def _parsed(offers: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Give each offer: its name, and its parameters in order. Raises `ValueError` where the grammar ends."""
    at = 0
    while rest := offers[at:].lstrip(" \t,"):  # a list may have empty elements
        at = len(offers) - len(rest)
        extension = _EXTENSION.match(offers, at)
        if extension is None:
            raise ValueError(offers)
        at = extension.end()
        parameters: list[tuple[str, str | None]] = []
        while (found := _PARAMETER.match(offers, at)) is not None:
            at = found.end()
            quoted = found[3]
            parameters.append(
                (found[1].lower(), found[2] if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            )
        rest = offers[at:].lstrip(" \t")
        if rest and rest[0] != ",":
            raise ValueError(offers)
        yield extension[1].lower(), parameters


def _served(parameters: list[tuple[str, str | None]]) -> Agreed | None:
    """Return the terms that serve one offer; None: it is to be declined."""
    named = dict(parameters)
    if len(named) != len(parameters):
        return None
    flags = {"server_no_context_takeover": False, "client_no_context_takeover": False}
    windows: dict[str, int | None] = {"server_max_window_bits": None, "client_max_window_bits": None}
    for name, value in parameters:
        if name in flags and value is None:
            flags[name] = True
        elif name == "client_max_window_bits" and value is None:
            windows[name] = WIDEST  # the client can be told; it need not use less
        elif name in windows and value is not None and _BITS.fullmatch(value):
            windows[name] = int(value)
        else:
            return None
    ours = windows["server_max_window_bits"]
    if ours is not None and ours < _NARROWEST:
        return None
    return Agreed(**flags, **windows)  # type: ignore[arg-type]  # the keys of each are those of one type


@define(eq=False)
class Deflate:
    """Both directions of a server's connection, by what was agreed on."""

    agreed: Agreed
    _inflater: zlib._Decompress | None = field(default=None, init=False)
    _deflater: zlib._Compress | None = field(default=None, init=False)
    _input: bytes | bytearray = field(default=b"", init=False)
    _full: bool = field(
        default=False, init=False
    )  # the last piece was as large as it may be: there may be more

    def feed(self, data: bytes | bytearray) -> None:
        """Take some of a message; `piece` gives what it holds. Only when everything before it has been given."""
        self._input = data

    def finish(self) -> None:
        """The message has no more: let `piece` give the last of it."""
        if self._inflater is not None:  # which it is after a last block, and before any
            self._input = TAIL

    @property
    def pending(self) -> bool:
        """There may be more to `piece`."""
        return self._full or bool(self._input)

    def piece(self) -> bytes:
        """Return the next of what was fed, at most `PIECE` bytes. Raises `NotDeflate`."""
        if self._inflater is None:
            bits = self.agreed.client_max_window_bits or WIDEST
            self._inflater = zlib.decompressobj(-max(bits, _NARROWEST))
        try:
            found = self._inflater.decompress(self._input, PIECE)
        except zlib.error:
            raise NotDeflate from None
        self._input, self._full = self._inflater.unconsumed_tail, len(found) == PIECE
        if (
            self._inflater.eof
        ):  # a last block, which a message may end with, and a byte that makes room for the tail
            if self._inflater.unused_data not in (b"", b"\0"):
                raise NotDeflate
            self._input, self._full, self._inflater = b"", False, None
        return found

    def ended(self) -> None:
        """A message has ended, and all of it has been given."""
        if self.agreed.client_no_context_takeover:
            self._inflater = None

    def deflated(self, text: bytes) -> bytes:
        """Return a message as it is sent."""
        if self._deflater is None:
            bits = self.agreed.server_max_window_bits or WIDEST
            self._deflater = zlib.compressobj(wbits=-bits)
        data = self._deflater.compress(text) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        if self.agreed.server_no_context_takeover:
            self._deflater = None
        return data[: -len(TAIL)]

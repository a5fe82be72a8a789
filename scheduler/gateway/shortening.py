"""Long items made short, so that they can be parsed and compared: long strings give way to their digests. Pure.

Theory of operation
    The digest is of what a string says, in UTF-8, however it is escaped; so an item has one short form, whichever way
    it is written. It stands in the string's place behind a NUL. An item that has a NUL of its own is not made short,
    because a string of it could be taken for a digest; nor is one that would be long or dense all the same. All work
    is done in slices (see `pool.wire.slices`).
"""

from __future__ import annotations

import hashlib

from pool.wire.codec import from_json
from pool.wire.scan import LONG, complete, long_strings
from pool.wire.slices import Meter, Sliced

SIZE = 16  # bytes of a digest
_SHORT = 256 * 1024  # bytes, that are parsed and printed in a few milliseconds
_FEW = 10_000  # brackets in them
_FEW_MEMBERS = 20_000  # and commas
_NUL = rb"\u0000"  # as it has to be written in JSON
_PIECE = 64 * 1024  # bytes
_HASHED, _DECODED = 0.7, 4.0  # units of work, for a byte


def hashed(text: bytes, meter: Meter) -> Sliced[bytes]:
    """Return the digest of a text."""
    found, view = hashlib.blake2b(digest_size=SIZE), memoryview(text)
    for start in range(0, len(text), _PIECE):
        found.update(view[start : start + _PIECE])
        if meter.full(_PIECE * _HASHED):
            yield
    return found.digest()


def shortened(text: bytes, meter: Meter) -> Sliced[tuple[bytes | None, bool]]:
    """Return an object with digests for its long strings, and whether it has such.

    None when it would not be short, or not clear.

    Raises:
        ValueError: it is no JSON object.
    """
    parts: list[bytes] = []
    at = size = 0
    replaced = False
    for start, end in (yield from long_strings(text)):
        content = yield from _content(text, start, end, meter)
        size += start - at
        if content is None or size > _SHORT:  # not long, but for its escapes
            continue
        parts += text[at:start], content
        at, replaced = end, True
    size = sum(map(len, parts)) + len(text) - at
    if size > _SHORT:
        return None, replaced
    parts.append(text[at:])
    own = parts[::2]
    if any(_NUL in part for part in own):
        return None, replaced
    brackets = sum(part.count(b"{") + part.count(b"[") for part in own)
    if brackets > _FEW or sum(part.count(b",") for part in own) > _FEW_MEMBERS:
        return None, replaced
    return b"".join(parts), replaced


def _content(text: bytes, start: int, end: int, meter: Meter) -> Sliced[bytes | None]:
    """Return what stands for a string; None when it is not long."""
    found, size = hashlib.blake2b(digest_size=SIZE), 0
    while start < end:
        cut = complete(text, start, min(start + _PIECE, end))
        piece = text[start:cut]
        if b"\\" in piece:
            piece = from_json(b'"' + piece + b'"').encode()
        found.update(piece)
        size += len(piece)
        if meter.full((cut - start) * _DECODED):
            yield
        start = cut
    return _NUL + found.hexdigest().encode() if size >= LONG else None

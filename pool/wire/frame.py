"""Makes frames, a client's and a server's: the counterpart of `frame_reader`, for what is sent.

Theory of operation
    What a client sends of any size is a text message in one masked frame. Writing it here spares it a copy for each
    layer of a WebSocket library, and above all the wait: a library masks a message whole, and for as long as that
    takes (a tenth of a second for 15 MB) nothing else runs in the process. So `frame` gives a long message piece by
    piece, and its caller sends each piece before it asks for the next. It stays one frame, whatever its length:
    servers are known to take that, and hardly one is ever shown a fragment.

    A message comes as its parts, which are never joined when it is long: a transcript is a list of items that are
    encoded already, and is sent as such.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

PIECE = 65_536  # bytes; some 100 microseconds of masking. A multiple of four, so that each begins with the same byte
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10  # kinds of frames
NO_STATUS = 1005  # what a close frame without a code means; never sent
LONGEST_REASON = 123  # bytes, of a close
_ONLY = 0x80  # the last frame of its message, and here the only one
_COMPRESSED = 0x40
_TEXT = _ONLY | TEXT
_MASKED = 0x80
_LONG = 512  # bytes; up to that one large number is faster than four tables
_XOR = [bytes(byte ^ key for byte in range(256)) for key in range(256)]


def frame(parts: Sequence[bytes], size: int, key: bytes) -> Iterator[bytes | bytearray]:
    """Give the frame of one text message of `size` bytes in all, masked with the four bytes of `key`."""
    if size <= PIECE:
        yield _head(size, key) + _masked(bytearray().join(parts), key)
        return
    yield _head(size, key)
    piece = bytearray()
    for part in parts:
        begin = 0
        while begin < len(part):
            end = begin + PIECE - len(piece)
            piece += memoryview(part)[begin:end]
            begin = end
            if len(piece) == PIECE:
                yield _masked(piece, key)
                piece = bytearray()
    if piece:
        yield _masked(piece, key)


def control_frame(kind: int, payload: bytes, key: bytes) -> bytes:
    """Return a ping, a pong or a close as a client sends it; at most 125 bytes."""
    return bytes((_ONLY | kind, _MASKED | len(payload))) + key + unmasked(payload, key)


def close_payload(code: int, reason: str) -> bytes:
    """Return what a close frame says; nothing where it has no code (`NO_STATUS`)."""
    if code == NO_STATUS:
        return b""
    return code.to_bytes(2, "big") + reason.encode()[:LONGEST_REASON].decode(errors="ignore").encode()


def server_frame(kind: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """Return a whole message, or a control frame, as a server sends it: unmasked."""
    first = _ONLY | (compressed and _COMPRESSED) | kind
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def unmasked(data: bytes | bytearray, key: bytes | bytearray) -> bytes | bytearray:
    """Return a payload without its mask, or with it: they are the same."""
    size = len(data)
    if size > _LONG:
        return _masked(bytearray(data), key)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


def _head(size: int, key: bytes) -> bytes:
    if size < 126:
        return bytes((_TEXT, _MASKED | size)) + key
    if size < 65_536:
        return bytes((_TEXT, _MASKED | 126)) + size.to_bytes(2, "big") + key
    return bytes((_TEXT, _MASKED | 127)) + size.to_bytes(8, "big") + key


def _masked(data: bytearray, key: bytes | bytearray) -> bytearray:
    # A table for every fourth byte is the fastest way without an extension: about 1 ns a byte.
    for offset, byte in enumerate(key):
        data[offset::4] = data[offset::4].translate(_XOR[byte])
    return data

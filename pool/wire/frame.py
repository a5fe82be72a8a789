"""Makes the frames of text messages, and pings: the counterpart of `sieve`, for what is sent.

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

from collections.abc import Iterator, Sequence

PIECE = 65_536  # bytes; some 100 microseconds of masking. A multiple of four, so that each begins with the same byte
_TEXT = 0x81  # the last, and only, frame of a text message
_PING = 0x89
_MASKED = 0x80
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


def ping(key: bytes) -> bytes:
    """Return the frame of a ping that says nothing."""
    return bytes((_PING, _MASKED)) + key


def _head(size: int, key: bytes) -> bytes:
    if size < 126:
        return bytes((_TEXT, _MASKED | size)) + key
    if size < 65_536:
        return bytes((_TEXT, _MASKED | 126)) + size.to_bytes(2, "big") + key
    return bytes((_TEXT, _MASKED | 127)) + size.to_bytes(8, "big") + key


def _masked(data: bytearray, key: bytes) -> bytearray:
    # A table for every fourth byte is the fastest way without an extension: about 1 ns a byte.
    for offset, byte in enumerate(key):
        data[offset::4] = data[offset::4].translate(_XOR[byte])
    return data

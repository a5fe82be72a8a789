"""HdrHistogram's encoding (V2, compressed, base64), read without making room for 23,000 counters. Pure.

The layout is that of the Java library: base64 of a cookie and a length, then zlib over a header and the counts in
ZigZag LEB128 variable-length integers, a negative one for a run of so many empty buckets.
"""

from __future__ import annotations

import base64
import struct
import zlib

from pool.stats.buckets import DIGITS, bucket_of, layout_of

_OUTER = struct.Struct(">II")  # cookie, length
_INNER = struct.Struct(">IIIIQQd")  # cookie, length, offset, digits, lowest, highest, ratio
_COMPRESSED, _PLAIN = 0x1C849304, 0x1C849303
_WORD_SIZE = 0xF0  # the bits of a cookie that say how wide the words are
MAX_SIZE = 4_000_000  # bytes, unpacked: far more than any histogram has


def decode(text: str | bytes) -> dict[int, int]:
    """Return the counts by bucket of an encoded histogram of whole microseconds.

    Raises:
        ValueError: it is none.
    """
    try:
        lowest, digits, data = _unpacked(text)
        counts = _counts(data)
    except (ValueError, zlib.error, struct.error) as error:  # what base64 raises is a ValueError
        raise ValueError(f"not an encoded histogram: {error}") from None
    if (lowest, digits) == (1, DIGITS):
        return counts
    bounds = layout_of(lowest, digits)
    moved: dict[int, int] = {}
    for index, count in counts.items():
        low, high = bounds(index)
        bucket = bucket_of((low + high + 1) // 2)
        moved[bucket] = moved.get(bucket, 0) + count
    return moved


def _unpacked(text: str | bytes) -> tuple[int, int, bytes]:
    packed = base64.b64decode(text, validate=True)
    cookie, length = _OUTER.unpack_from(packed)
    if cookie & ~_WORD_SIZE != _COMPRESSED:
        raise ValueError(f"its cookie is {cookie:#x}, not that of a compressed histogram (V2)")
    if length != len(packed) - _OUTER.size:
        raise ValueError(f"it says that it has {length} bytes, and has {len(packed) - _OUTER.size}")
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(packed[_OUTER.size :], MAX_SIZE)
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise ValueError("its compressed part is cut off, or too big")
    cookie, length, offset, digits, lowest, _, _ = _INNER.unpack_from(data)
    if cookie & ~_WORD_SIZE != _PLAIN or length > len(data) - _INNER.size:
        raise ValueError("its inner header is not that of a histogram (V2)")
    if offset or not 1 <= digits <= 5 or lowest < 1:
        raise ValueError(f"it has offset {offset}, {digits} digits and {lowest} as its least value")
    return lowest, digits, data[_INNER.size : _INNER.size + length]


def _counts(data: bytes) -> dict[int, int]:
    counts: dict[int, int] = {}
    index = word = shift = 0
    for byte in data:
        if shift == 56:  # the ninth byte is whole
            word |= byte << shift
        else:
            word |= (byte & 0x7F) << shift
            if byte & 0x80:
                shift += 7
                continue
        value = (word >> 1) ^ -(word & 1)
        if value > 0:
            counts[index] = value
            index += 1
        else:
            index += -value or 1
        word = shift = 0
    if shift:
        raise ValueError("its last count is cut off")
    return counts

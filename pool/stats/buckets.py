"""The buckets of `HdrHistogram(1, HOUR, 3)`. Pure.

Whole microseconds have a bucket each up to 2048, and then 1024 buckets to each doubling, so that no value is off by
more than 0.1 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable

HOUR = 3_600_000_000  # microseconds: the longest that is told apart
DIGITS = 3
_MAGNITUDE = 10  # a doubling has 2 ** 10 buckets, for three digits
_HALF = 1 << _MAGNITUDE
_TWO = 2 * _HALF


def bucket_of(micros: int) -> int:
    """Return the bucket of a value; what lies outside the range is put at its end, so that nothing is dropped."""
    if micros < _TWO:
        return micros if micros > 1 else 1
    if micros > HOUR:
        micros = HOUR
    shift = micros.bit_length() - _MAGNITUDE - 1
    return (shift << _MAGNITUDE) + (micros >> shift)


def bounds_of(bucket: int) -> tuple[int, int]:
    """Return the least and the greatest value of a bucket, in microseconds."""
    if bucket < _TWO:
        return bucket, bucket
    shift = (bucket >> _MAGNITUDE) - 1
    low = ((bucket & _HALF - 1) + _HALF) << shift
    return low, low + (1 << shift) - 1


def layout_of(lowest: int, digits: int) -> Callable[[int], tuple[int, int]]:
    """Return what gives the bounds of a bucket in any other histogram of the family."""
    unit = int(math.log2(lowest))
    magnitude = max(1, math.ceil(math.log2(2 * 10**digits))) - 1

    def bounds(index: int) -> tuple[int, int]:
        half = 1 << magnitude
        shift = (index >> magnitude) - 1
        sub = (index & half - 1) + half
        if shift < 0:
            shift, sub = 0, sub - half
        low = sub << shift + unit
        return low, low + (1 << shift + unit) - 1

    return bounds

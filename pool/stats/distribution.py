"""A distribution of durations: a frozen HdrHistogram of which only the buckets that hold something are kept. Pure.

Theory of operation
    The library keeps 23,000 counters a histogram, which take 180 kB and must be walked for every percentile; what a
    pool sees falls into a few hundred of them. So only those are kept, as pairs (bucket, count), and the library is
    asked only for its encoding, which every tool of the HdrHistogram family reads.

    Everything else is derived from the buckets: so distributions can be added and subtracted without loss, and what
    comes out is what would have been recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from attrs import frozen
from hdrh.histogram import HdrHistogram

from pool.stats import encoding
from pool.stats.buckets import DIGITS, HOUR, bounds_of, bucket_of

MICROSECONDS = 1e6
_END = math.inf, 0  # behind the last bucket


@frozen(repr=False)
class Distribution:
    """Durations in seconds. `a + b` merges two; `newer - older` is what came between two snapshots of one source.

    `buckets` are pairs (bucket, count) in order, without empty ones. All numbers are zero when nothing was recorded.
    """

    buckets: tuple[tuple[int, int], ...] = ()

    @classmethod
    def counted(cls, counts: Mapping[int, int]) -> Distribution:
        """Return the distribution with these counts by bucket."""
        return cls(tuple(sorted(pair for pair in counts.items() if pair[1])))

    @classmethod
    def of_seconds(cls, durations: Iterable[float]) -> Distribution:
        """Return the distribution of these durations."""
        found: dict[int, int] = {}
        for seconds in durations:
            bucket = bucket_of(round(seconds * MICROSECONDS))
            found[bucket] = found.get(bucket, 0) + 1
        return cls.counted(found)

    def __repr__(self) -> str:
        return f"<Distribution count={self.count} p50={self.p50:g} p99={self.p99:g} max={self.max:g}>"

    def __bool__(self) -> bool:
        return bool(self.buckets)

    @cached_property
    def count(self) -> int:
        """How many were recorded."""
        return sum(count for _, count in self.buckets)

    @cached_property
    def sum(self) -> float:
        """Their sum, each taken as the middle of its bucket."""
        return sum(count * ((low + high + 1) // 2) for low, high, count in self._spans()) / MICROSECONDS

    @property
    def mean(self) -> float:
        """Their mean."""
        return self.sum / self.count if self.buckets else 0.0

    @property
    def min(self) -> float:
        """The least."""
        return bounds_of(self.buckets[0][0])[0] / MICROSECONDS if self.buckets else 0.0

    @property
    def max(self) -> float:
        """The greatest."""
        return bounds_of(self.buckets[-1][0])[1] / MICROSECONDS if self.buckets else 0.0

    @cached_property
    def p50(self) -> float:
        """The median."""
        return self.percentile(50.0)

    @cached_property
    def p90(self) -> float:
        """Nine of ten took no longer."""
        return self.percentile(90.0)

    @cached_property
    def p99(self) -> float:
        """99 of a hundred took no longer."""
        return self.percentile(99.0)

    def percentile(self, percent: float) -> float:
        """Return the duration that so many percent (0 to 100) did not exceed.

        The rank is rounded, as HdrHistogram's Python library does it.
        """
        target = max(1, int(min(percent, 100.0) * self.count / 100.0 + 0.5))
        reached = 0
        for bucket, count in self.buckets:
            reached += count
            if reached >= target:
                return bounds_of(bucket)[0 if percent == 0.0 else 1] / MICROSECONDS
        return 0.0

    def within(self, seconds: float) -> int:
        """Return how many took no longer than this, to the precision of the buckets."""
        return self.cumulative((seconds,))[0]

    def cumulative(self, boundaries: Sequence[float]) -> list[int]:
        """Return how many took no longer than each of these, which rise."""
        counts: list[int] = []
        reached, left = 0, iter(self.buckets)
        bucket, count = next(left, _END)
        for boundary in boundaries:
            last = bucket_of(round(boundary * MICROSECONDS))
            while bucket <= last:
                reached += count
                bucket, count = next(left, _END)
            counts.append(reached)
        return counts

    def values(self) -> Iterator[tuple[float, int]]:
        """Yield each duration that occurred (the middle of its bucket) with its count, the shortest first."""
        for low, high, count in self._spans():
            yield (low + high + 1) // 2 / MICROSECONDS, count

    def _spans(self) -> Iterator[tuple[int, int, int]]:
        for bucket, count in self.buckets:
            yield *bounds_of(bucket), count

    def __add__(self, other: Distribution) -> Distribution:
        if not isinstance(other, Distribution):
            return NotImplemented
        if not (self.buckets and other.buckets):
            return self if self.buckets else other
        counts = dict(self.buckets)
        for bucket, count in other.buckets:
            counts[bucket] = counts.get(bucket, 0) + count
        return Distribution.counted(counts)

    def __sub__(self, older: Distribution) -> Distribution:
        """Return what was recorded since `older`.

        Raises:
            ValueError: `older` is no earlier state of the same source.
        """
        if not isinstance(older, Distribution):
            return NotImplemented
        if not older.buckets:
            return self
        counts = dict(self.buckets)
        for bucket, count in older.buckets:
            left = counts.get(bucket, 0) - count
            if left < 0:
                raise ValueError(
                    f"the older distribution has {count} of about {bounds_of(bucket)[0] / MICROSECONDS:g} s, "
                    f"the newer only {left + count}: it is no earlier state of the same source"
                )
            counts[bucket] = left
        return Distribution.counted(counts)

    # HdrHistogram's own encoding.

    def histogram(self) -> HdrHistogram:
        """Return it as the library's histogram, of microseconds."""
        histogram = HdrHistogram(1, HOUR, DIGITS)
        counts = histogram.counts
        for bucket, count in self.buckets:
            counts[bucket] = count
        if self.buckets:
            histogram.set_internal_tacking_values(self.buckets[0][0], self.buckets[-1][0], self.count)
        return histogram

    def encode(self) -> str:
        """Return HdrHistogram's compressed encoding (V2) in base64, as it stands in its logs."""
        text: bytes = self.histogram().encode()
        return text.decode()

    @classmethod
    def decode(cls, text: str | bytes) -> Distribution:
        """Return the distribution of an encoded histogram of microseconds.

        Raises:
            ValueError: it is none.
        """
        return cls.counted(encoding.decode(text))

"""What a pool counts while it works. Recording costs about a microsecond."""

from __future__ import annotations

from collections import Counter

from attrs import define, field
from hdrh.histogram import HdrHistogram

HOUR = 3_600_000_000  # microseconds


def histogram() -> HdrHistogram:
    """Return a histogram of whole microseconds, from 1 to an hour, to three digits."""
    return HdrHistogram(1, HOUR, 3)


def record(into: HdrHistogram, seconds: float) -> None:
    """Record a duration; what lies outside the range counts at its end, so that nothing is dropped silently."""
    into.record_value(min(HOUR, max(1, round(seconds * 1e6))))


@define(eq=False)
class Recorder:
    """The histograms and counters of one pool."""

    counts: Counter[str] = field(factory=Counter)
    wait: HdrHistogram = field(factory=histogram)
    dial: HdrHistogram = field(factory=histogram)
    first_event: HdrHistogram = field(factory=histogram)
    turn: HdrHistogram = field(factory=histogram)

"""What a pool counts while it works. Recording a duration costs about half a microsecond."""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from pool.stats.buckets import bucket_of
from pool.stats.distribution import MICROSECONDS, Distribution
from pool.stats.snapshot import HttpStats

LABELS = 32  # values of a label that are told apart
OTHERS = "(others)"  # the rest, so that a million names are not a million series
LABEL_LENGTH = 100


@define(eq=False)
class Histogram:
    """A distribution in the making."""

    counts: dict[int, int] = field(factory=dict, init=False)

    def record(self, seconds: float, count: int = 1) -> None:
        """Record a duration, so many times."""
        # The library's own `record_value` takes three times as long.
        bucket, counts = bucket_of(int(seconds * MICROSECONDS + 0.5)), self.counts
        counts[bucket] = counts.get(bucket, 0) + count

    def snapshot(self) -> Distribution:
        """Return what was recorded so far."""
        return Distribution(tuple(sorted(self.counts.items())))


@define(eq=False)
class Labels:
    """The values of one label: the first `limit` are kept, all others are one."""

    limit: int = LABELS
    _known: set[str] = field(factory=set, init=False)

    def of(self, name: str) -> str:
        """Return the label under which to count `name`."""
        if name in self._known:
            return name
        name = name[:LABEL_LENGTH]
        if name in self._known:
            return name
        if len(self._known) >= self.limit:
            return OTHERS
        self._known.add(name)
        return name


@define(eq=False)
class Tally:
    """Counts by a label whose values come from outside."""

    counts: Counter[str] = field(factory=Counter, init=False)
    _labels: Labels = field(factory=Labels, init=False)

    def add(self, name: str, count: int = 1) -> None:
        """Count one."""
        self.counts[self._labels.of(name)] += count


@define(eq=False)
class Recorder:
    """The histograms and counters of one pool."""

    opened: int = field(default=0, init=False)
    leased: int = field(default=0, init=False)
    strays: int = field(default=0, init=False)
    losses: Tally = field(factory=Tally, init=False)
    closes: Tally = field(factory=Tally, init=False)
    dial_failures: Tally = field(factory=Tally, init=False)
    wait: Histogram = field(factory=Histogram, init=False)
    dial: Histogram = field(factory=Histogram, init=False)
    warm_up: Histogram = field(factory=Histogram, init=False)
    first_event: Histogram = field(factory=Histogram, init=False)
    first_token: Histogram = field(factory=Histogram, init=False)
    turn: Histogram = field(factory=Histogram, init=False)
    rotation: Histogram = field(factory=Histogram, init=False)
    loop_lag: Histogram = field(factory=Histogram, init=False)


@define(eq=False)
class HttpRecorder:
    """The histograms and counters of one HTTP client."""

    opened: int = field(default=0, init=False)
    requests: int = field(default=0, init=False)
    turns: Tally = field(factory=Tally, init=False)
    dial_failures: Tally = field(factory=Tally, init=False)
    bytes_sent: int = field(default=0, init=False)
    bytes_received: int = field(default=0, init=False)
    dial: Histogram = field(factory=Histogram, init=False)
    first_event: Histogram = field(factory=Histogram, init=False)
    first_token: Histogram = field(factory=Histogram, init=False)
    turn: Histogram = field(factory=Histogram, init=False)

    def snapshot(self, *, connections: int, idle: int, in_flight: int) -> HttpStats:
        """Return the counts so far, together with how things stand."""
        return HttpStats(
            open=connections,
            idle=idle,
            in_flight=in_flight,
            opened=self.opened,
            dial_failures=self.dial_failures.counts,
            requests=self.requests,
            turns=self.turns.counts,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            dial=self.dial.snapshot(),
            first_event=self.first_event.snapshot(),
            first_token=self.first_token.snapshot(),
            turn=self.turn.snapshot(),
        )

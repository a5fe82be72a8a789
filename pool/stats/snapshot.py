"""Frozen snapshots of what a pool did and does."""

from __future__ import annotations

from itertools import compress

from attrs import field, frozen
from hdrh.histogram import HdrHistogram


@frozen(kw_only=True)
class Summary:
    """A latency distribution in seconds; all zero when nothing was recorded."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0

    @classmethod
    def of(cls, histogram: HdrHistogram) -> Summary:
        """Summarise a histogram of whole microseconds."""
        total = histogram.get_total_count()
        if not total:
            return cls()
        # One pass over a plain list: the library's own methods walk 23,000 ctypes numbers for each percentile,
        # in tens of milliseconds, and this is asked for while the event loop waits.
        counts: list[int] = histogram.counts[: histogram.counts_len]
        targets = [histogram.get_target_count_at_percentile(percentile) for percentile in (50.0, 90.0, 99.0)]
        found: list[float] = []
        reached = weighted = 0
        for index in compress(range(len(counts)), counts):
            low = histogram.get_value_from_index(index)
            high = histogram.get_highest_equivalent_value(low)
            reached += counts[index]
            weighted += counts[index] * ((low + high + 1) // 2)
            while len(found) < len(targets) and reached >= targets[len(found)]:
                found.append(high / 1e6)
        p50, p90, p99 = found
        return cls(
            count=total,
            mean=weighted / total / 1e6,
            p50=p50,
            p90=p90,
            p99=p99,
            max=histogram.get_max_value() / 1e6,
        )


@frozen(kw_only=True)
class LeaseInfo:
    """Who holds which lane, and for how long (seconds)."""

    lane: str
    holder: str
    seconds: float


@frozen(kw_only=True)
class PoolStats:
    """One moment of a pool. Counters run from the pool's opening; sizes are in bytes, times in seconds."""

    # Now.
    dialing: int = 0
    open: int = 0
    leaving: int = 0
    draining: int = 0
    idle_lanes: int = 0
    hot_lanes: int = 0  # idle lanes on which a conversation is remembered
    leased_lanes: int = 0
    waiting: int = 0
    dial_rate: float = 0.0  # a second; below the setting after refusals
    leases: tuple[LeaseInfo, ...] = ()
    # Since the pool opened.
    opened: int = 0
    lost: int = 0  # ended by the other side, or by silence
    rotated: int = 0  # replaced before their cap
    closed: int = 0  # closed by us for any other reason
    dials_failed: int = 0
    leased: int = 0
    strays: int = 0  # events that belonged to no response
    bytes_sent: int = 0
    bytes_received: int = 0
    wait: Summary = field(factory=Summary)  # for a lane, from the acquire
    dial: Summary = field(factory=Summary)
    first_event: Summary = field(factory=Summary)  # from the send
    turn: Summary = field(factory=Summary)  # from the send to the terminal event

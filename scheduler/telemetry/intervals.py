"""What every scheduler did in each interval, also in its last one. No clock: `now` is an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from pool.stats.snapshot import PoolStats
from scheduler.scheduler import Scheduler
from scheduler.stats import SchedulerStats

Sources = Callable[[], Mapping[str, Scheduler]]


@frozen(kw_only=True)
class Interval:
    """What a scheduler did in a span of time. `start` is seconds since the epoch; gauges are those of the end."""

    source: str = ""
    endpoint: str = ""
    start: float
    seconds: float
    stats: SchedulerStats


@frozen
class _Seen:
    scheduler: Scheduler
    stats: SchedulerStats
    until: float


@define(eq=False)
class Follower:
    """Cuts the time of all sources into intervals. `began` is when it started, by the clock of `now`."""

    sources: Sources
    began: float
    epoch: float  # the same moment, in seconds since 1970
    _seen: dict[str, _Seen] = field(factory=dict, init=False)

    def take(self, now: float) -> tuple[list[Interval], Callable[[], None]]:
        """Return the intervals up to now, and what to call when they have been written.

        If it is not called, the next intervals begin where these do.
        """
        found: list[Interval] = []
        after: dict[str, _Seen] = {}
        sources = self.sources()
        for name, seen in self._seen.items():
            if sources.get(name) is not seen.scheduler:  # it is gone, but has its last interval to tell
                found.append(self._interval(name, seen, seen.scheduler.stats(), now))
        for name, scheduler in sources.items():
            stats = scheduler.stats()
            before = self._seen.get(name)
            if before is None or before.scheduler is not scheduler:
                before = _Seen(scheduler, SchedulerStats(), max(self.began, now - stats.pool.seconds))
            found.append(self._interval(name, before, stats, now))
            after[name] = _Seen(scheduler, stats, now)

        def written() -> None:
            self._seen = after

        return found, written

    def _interval(self, name: str, before: _Seen, stats: SchedulerStats, now: float) -> Interval:
        return Interval(
            source=name,
            endpoint=endpoint_of(stats.pool),
            start=self.epoch + before.until - self.began,
            seconds=now - before.until,
            stats=stats - before.stats,
        )


def endpoint_of(pool: PoolStats) -> str:
    """Return whose pool it is."""
    return "+".join(pool.endpoints)

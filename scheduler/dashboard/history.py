"""The last quarter of an hour of one scheduler, so that who looks late still sees how it came about. Pure.

Theory of operation
    Every `STEP` seconds a sample of the statistics is added. From it and the one before come the percentiles of what
    happened in between: a row. The rows are kept for `KEPT` seconds, and the counters of each sample with them, so
    that "in the last minute" is a subtraction. Of the distributions only the latest sample's are kept. What a young
    scheduler did before its first sample counts, too: when its pool was opened, all was zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from pool.stats import Distribution
from scheduler.stats import SchedulerStats

STEP = 5.0  # s
KEPT = 15 * 60.0  # s
MINUTE = 60.0  # s
NOTHING = SchedulerStats()
WARM = ("hot", "hydrated")  # reasons of the turns that did not travel whole


@frozen(kw_only=True)
class Row:
    """One step. A pair holds p50 and p99 in seconds; None: nothing of the kind has ended in it."""

    at: float
    wait: tuple[float, float] | None
    first_event: tuple[float, float] | None
    turn: tuple[float, float] | None
    busy: int
    usable: int
    waiting: int
    turns: int
    hot: int
    lost: int

    def to_json(self) -> list[Any]:
        """Return it as the page reads it."""
        pairs = (pair or (None, None) for pair in (self.wait, self.first_event, self.turn))
        flat = [value if value is None else round(value, 6) for pair in pairs for value in pair]
        return [*flat, self.busy, self.usable, self.waiting, self.turns, self.hot, self.lost]


@frozen(kw_only=True)
class Recent:
    """What happened of late."""

    seconds: float
    turns: int = 0
    placements: Mapping[str, int] = field(factory=dict)
    retries: Mapping[str, int] = field(factory=dict)
    lost: int = 0
    dials_failed: int = 0

    @property
    def hot(self) -> int:
        """Turns that travelled as a delta."""
        return sum(self.placements.get(reason, 0) for reason in WARM)

    @property
    def returning(self) -> int:
        """Turns that could have been hot: all but the first ones of their conversations."""
        return self.turns - self.placements.get("replay:new", 0)


@frozen(kw_only=True)
class _Mark:
    """The counters of a sample."""

    at: float
    turns: int
    placements: Mapping[str, int]
    retries: Mapping[str, int]
    lost: int
    dials_failed: int

    @classmethod
    def of(cls, at: float, stats: SchedulerStats) -> _Mark:
        return cls(
            at=at,
            turns=stats.turns,
            placements=stats.placements,
            retries=stats.retries,
            lost=stats.pool.lost,
            dials_failed=stats.pool.dials_failed,
        )


@define(eq=False)
class History:
    """The rows of one scheduler, the oldest first. Times are seconds on one clock of the caller's."""

    rows: deque[Row] = field(factory=lambda: deque(maxlen=int(KEPT / STEP)), init=False)
    _marks: deque[_Mark] = field(factory=lambda: deque(maxlen=int(KEPT / STEP) + 1), init=False)
    _last: tuple[Distribution, Distribution, Distribution] | None = field(default=None, init=False)

    def add(self, stats: SchedulerStats, *, busy: int, usable: int, waiting: int, now: float) -> None:
        """Take a sample."""
        mark, seen = _Mark.of(now, stats), (stats.wait, stats.first_event, stats.turn)
        if self._last is None and stats.turns and stats.pool.seconds <= 2 * STEP:
            self._marks.append(_Mark.of(now - stats.pool.seconds, NOTHING))
            self._last = (NOTHING.wait, NOTHING.first_event, NOTHING.turn)
        if self._last is not None:
            before = self._marks[-1]
            placements = _since(mark.placements, before.placements)
            wait, first_event, turn = map(_between, seen, self._last)
            row = Row(
                at=now,
                wait=wait,
                first_event=first_event,
                turn=turn,
                busy=busy,
                usable=usable,
                waiting=waiting,
                turns=mark.turns - before.turns,
                hot=sum(placements.get(reason, 0) for reason in WARM),
                lost=mark.lost - before.lost,
            )
            self.rows.append(row)
        self._marks.append(mark)
        self._last = seen

    def recent(self, stats: SchedulerStats, *, now: float, seconds: float = MINUTE) -> Recent:
        """Return what happened in the last so many seconds, as nearly as the samples tell."""
        current = _Mark.of(now, stats)
        before = next((mark for mark in self._marks if mark.at >= now - seconds), None)
        if stats.pool.seconds <= seconds:
            before = _Mark.of(now - max(stats.pool.seconds, STEP), NOTHING)  # one turn in a blink is no rate
        if before is None:
            return Recent(seconds=0.0)
        return Recent(
            seconds=now - before.at,
            turns=current.turns - before.turns,
            placements=_since(current.placements, before.placements),
            retries=_since(current.retries, before.retries),
            lost=current.lost - before.lost,
            dials_failed=current.dials_failed - before.dials_failed,
        )


def _between(newer: Distribution, older: Distribution) -> tuple[float, float] | None:
    interval = newer - older
    return (interval.p50, interval.p99) if interval.count else None


def _since(newer: Mapping[str, int], older: Mapping[str, int]) -> dict[str, int]:
    changes = {name: count - older.get(name, 0) for name, count in newer.items()}
    return {name: count for name, count in changes.items() if count}

"""What a simulation counts in its window, and the frozen outcome of it. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from attrs import define, field, frozen

HOT = "hot"
NEW = "replay:new"


def quantile(ascending: Iterable[float], share: float) -> float:
    """Return the smallest value that at least a `share` of all do not exceed."""
    values = ascending if isinstance(ascending, tuple) else tuple(ascending)
    if not values:
        return 0.0
    return values[min(len(values) - 1, max(0, math.ceil(share * len(values)) - 1))]


@frozen(kw_only=True)
class Outcome:
    """What came of a simulated window. Times in seconds, tokens as a server counts them.

    `overloaded`: the line grew without end, so nothing else about waits means much.
    """

    seconds: float = 0.0
    waits: tuple[float, ...] = field(
        default=(), repr=False
    )  # ascending; for admission and a lane, of each turn
    turn_seconds: tuple[float, ...] = field(default=(), repr=False)  # ascending; from the call to the end
    reasons: Mapping[str, int] = field(factory=dict)
    refused: int = 0
    overloaded: bool = False
    runs: int = 0  # ended
    fresh_tokens: int = 0  # read for the first time
    replayed_tokens: int = 0  # read again by turns that were not hot
    moved_tokens: int = 0  # read again ahead of time, on a new connection
    cached_tokens: int = 0  # of contexts that a lane remembered
    written_tokens: int = 0
    moves: int = 0
    opened: int = 0
    lost: int = 0
    rotated: int = 0
    busy: float = 0.0  # lanes leased, on average
    open: float = 0.0  # connections, those that are being replaced included, on average
    most_open: int = 0
    alive: float = 0.0  # runs, on average
    held_by_tokens: int = 0  # turns that the token budget kept waiting
    in_system: float = 0.0  # turns called and not ended, on average

    @property
    def turns(self) -> int:
        """Turns that were sent."""
        return len(self.waits)

    @property
    def returning(self) -> int:
        """Turns that had something to be remembered: all but the first of each run."""
        return self.turns - self.reasons.get(NEW, 0)

    @property
    def hot(self) -> float:
        """The share of the returning turns that were remembered."""
        return self.reasons.get(HOT, 0) / self.returning if self.returning else 1.0

    @property
    def p50(self) -> float:
        """The median wait."""
        return math.inf if self.overloaded else quantile(self.waits, 0.5)

    @property
    def p99(self) -> float:
        """The wait that one turn in a hundred exceeds."""
        return math.inf if self.overloaded else quantile(self.waits, 0.99)

    @property
    def mean_wait(self) -> float:
        """The average wait."""
        return math.inf if self.overloaded else sum(self.waits) / max(1, self.turns)

    @property
    def waited(self) -> float:
        """The share of the turns that had to wait."""
        return sum(1 for wait in self.waits if wait > 1e-9) / max(1, self.turns)

    def per_hour(self, count: float) -> float:
        """Return how many of something there would be in an hour."""
        return count * 3600 / self.seconds if self.seconds else 0.0


def merge(outcomes: Iterable[Outcome]) -> Outcome:
    """Pool replications of one scenario: counts add up, averages over time are weighted by it."""
    several = tuple(outcomes)
    seconds = sum(one.seconds for one in several)

    def weighted(name: str) -> float:
        return sum(getattr(one, name) * one.seconds for one in several) / seconds if seconds else 0.0

    def total(name: str) -> int:
        return sum(getattr(one, name) for one in several)

    waits: list[float] = sorted(wait for one in several for wait in one.waits)
    times: list[float] = sorted(time for one in several for time in one.turn_seconds)
    reasons: Counter[str] = Counter()
    for one in several:
        reasons.update(one.reasons)
    sums = {
        name: total(name)
        for name in (
            *("refused", "runs", "fresh_tokens", "replayed_tokens", "moved_tokens", "cached_tokens"),
            *("written_tokens", "moves", "opened", "lost", "rotated", "held_by_tokens"),
        )
    }
    return Outcome(
        seconds=seconds,
        waits=tuple(waits),
        turn_seconds=tuple(times),
        reasons=dict(reasons),
        overloaded=any(one.overloaded for one in several),
        most_open=max((one.most_open for one in several), default=0),
        busy=weighted("busy"),
        open=weighted("open"),
        alive=weighted("alive"),
        in_system=weighted("in_system"),
        **sums,
    )


@define(eq=False)
class Level:
    """Something that goes up and down, averaged over time since `restart`."""

    value: int = 0
    most: int = 0
    _area: float = field(default=0.0, init=False)
    _since: float = field(default=0.0, init=False)
    _began: float = field(default=0.0, init=False)

    def add(self, change: int, now: float) -> None:
        """It changes."""
        self._area += self.value * (now - self._since)
        self._since = now
        self.value += change
        if self.value > self.most:
            self.most = self.value

    def restart(self, now: float) -> None:
        """Average from now on."""
        self._area, self._since, self._began, self.most = 0.0, now, now, self.value

    def mean(self, now: float) -> float:
        """Return the average so far."""
        spent = now - self._began
        return (self._area + self.value * (now - self._since)) / spent if spent > 0 else float(self.value)


@define(eq=False)
class Tally:
    """The window of one simulation: `begin` opens it, `end` closes it, turns called within it count when they end."""

    opened_at: float | None = None
    closed_at: float | None = None
    waits: list[float] = field(factory=list)
    turn_seconds: list[float] = field(factory=list)
    reasons: Counter[str] = field(factory=Counter)
    counts: Counter[str] = field(factory=Counter)
    busy: Level = field(factory=Level)
    open: Level = field(factory=Level)
    alive: Level = field(factory=Level)
    in_system: Level = field(factory=Level)
    _means: list[float] = field(factory=list, init=False)
    _most_open: int = field(default=0, init=False)

    @property
    def _levels(self) -> tuple[Level, ...]:
        return self.busy, self.open, self.alive, self.in_system

    @property
    def counting(self) -> bool:
        """The window is open."""
        return self.opened_at is not None and self.closed_at is None

    def begin(self, now: float) -> None:
        """Open the window."""
        self.opened_at = now
        self.counts.clear()
        for level in self._levels:
            level.restart(now)

    def end(self, now: float) -> None:
        """Close it: averages and rates are those up to now."""
        self.closed_at = now
        self._means = [level.mean(now) for level in self._levels]
        self._most_open = self.open.most

    def note(self, name: str, amount: int = 1) -> None:
        """Count something that happens, if the window is open."""
        if self.counting:
            self.counts[name] += amount

    def outcome(self, *, overloaded: bool) -> Outcome:
        """Return what there is."""
        assert self.opened_at is not None
        assert self.closed_at is not None
        busy, connections, alive, in_system = self._means
        return Outcome(
            seconds=self.closed_at - self.opened_at,
            waits=tuple(sorted(self.waits)),
            turn_seconds=tuple(sorted(self.turn_seconds)),
            reasons=dict(self.reasons),
            overloaded=overloaded,
            most_open=self._most_open,
            busy=busy,
            open=connections,
            alive=alive,
            in_system=in_system,
            **self.counts,
        )

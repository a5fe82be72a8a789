"""Whether dialling makes sense: a circuit breaker over the dials of one endpoint with one key. Pure.

Theory of operation
        CLOSED -> OPEN          `threshold` dials in a row have failed, or one in a way that will not mend itself
        OPEN -> HALF_OPEN       the cooldown is over and one dial, the probe, is under way; no other may start
        HALF_OPEN -> CLOSED     the probe succeeded
        HALF_OPEN -> OPEN       it failed: the next cooldown is twice as long, up to `longest`
        OPEN -> CLOSED          a dial that began before it opened succeeded after all

    Only dials count. What a server says to a request on an open connection (429, overloaded) is not an outage of
    its sockets. Cooldowns are jittered, so that a fleet of processes does not come back in step. It never stays
    open for good: however hopeless a refusal looks, servers change, and a probe costs next to nothing.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Mapping

from attrs import define, field


class BreakerState(enum.Enum):
    """Where a breaker stands."""

    CLOSED = "closed"  # dials go ahead
    OPEN = "open"  # none does, until the cooldown is over
    HALF_OPEN = "half-open"  # one is under way, to see


_S = BreakerState
ALLOWED: Mapping[BreakerState, frozenset[BreakerState]] = {
    _S.CLOSED: frozenset({_S.OPEN}),
    _S.OPEN: frozenset({_S.HALF_OPEN, _S.CLOSED}),
    _S.HALF_OPEN: frozenset({_S.CLOSED, _S.OPEN}),
}


@define(eq=False)
class Breaker:
    """The circuit breaker of one endpoint's dials. Times are in seconds on one clock of the caller's."""

    threshold: int
    cooldown: float  # after it has opened for the first time
    longest: float  # cooldown after many failed probes
    rng: random.Random
    state: BreakerState = field(default=BreakerState.CLOSED, init=False)
    failures: int = field(default=0, init=False)  # in a row
    _opened: int = field(default=0, init=False)  # times in a row
    _until: float = field(default=-math.inf, init=False)  # the end of the cooldown

    def _move(self, state: BreakerState) -> None:
        assert state in ALLOWED[self.state], f"{self.state} -> {state}"
        self.state = state

    @property
    def closed(self) -> bool:
        """Dials are expected to succeed."""
        return self.state is _S.CLOSED

    def ready_at(self, now: float) -> float:
        """Return when the next dial may start: `now` itself if at once, `math.inf` while a probe is under way."""
        match self.state:
            case BreakerState.CLOSED:
                return now
            case BreakerState.OPEN:
                return max(now, self._until)
            case _:
                return math.inf

    def take(self, now: float) -> None:
        """A dial starts. Call it only when `ready_at(now) <= now`."""
        assert self.ready_at(now) <= now
        if self.state is _S.OPEN:
            self._move(_S.HALF_OPEN)

    def succeeded(self) -> None:
        """A dial succeeded."""
        self.failures = self._opened = 0
        if self.state is not _S.CLOSED:
            self._move(_S.CLOSED)

    def failed(self, now: float, *, hopeless: bool = False) -> None:
        """A dial failed. `hopeless`: the next one would fail in the same way."""
        self.failures += 1
        probe = self.state is _S.HALF_OPEN
        if probe or (self.closed and (hopeless or self.failures >= self.threshold)):
            self._move(_S.OPEN)
            cooldown = min(self.longest, self.cooldown * 2.0 ** min(self._opened, 30))
            self._until = now + cooldown * self.rng.uniform(0.75, 1.25)
            self._opened += 1

    def withdrawn(self) -> None:
        """A dial was given up before anything could be learned from it: another one may be the probe."""
        if self.state is _S.HALF_OPEN:
            self._move(_S.OPEN)

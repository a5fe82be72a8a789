"""How fast to dial: a token bucket that adapts to refusals. Pure.

Theory of operation
    Dials take tokens, refilled at `rate` up to `burst`. A refusal that says "too many" (403 or 429 at the
    upgrade) halves the rate and empties the bucket; every success raises the rate by a tenth of its base again.
    Any failure holds the next dial back, twice as long each time in a row, at most `LONGEST` seconds, or as long
    as the server said (at most `ASKED`). So does a connection that opens and is closed before anything was asked of
    it: some servers refuse that way. The hold is jittered, so that a fleet of processes does not come back in step.
"""

from __future__ import annotations

import math
import random

from attrs import define, field

SHORTEST, LONGEST = 0.25, 30.0  # s, the hold after one failure, and after many
ASKED = 300.0  # s, the longest hold that a server can ask for; then one dial sees whether it is still so
TOO_MANY = frozenset({403, 429})
FLOOR = 1 / 64  # of the base rate


@define(eq=False)
class Pacer:
    """The token bucket of one endpoint's dials. Times are in seconds on one clock of the caller's."""

    base: float
    burst: int
    rng: random.Random
    failures: int = field(default=0, init=False)  # in a row
    # Connections in a row that opened and were closed before any use
    flaps: int = field(default=0, init=False)
    rate: float = field(init=False)
    _tokens: float = field(init=False)
    _filled_at: float = field(default=-math.inf, init=False)
    _held_until: float = field(default=-math.inf, init=False)
    _flap_until: float = field(default=-math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self.rate, self._tokens = self.base, float(self.burst)

    def retune(self, base: float, burst: int) -> None:
        """Change the settings; what refusals taught stays in proportion."""
        self.rate *= base / self.base
        self.base, self.burst = base, burst
        self._tokens = min(self._tokens, float(burst))

    def ready_at(self, now: float) -> float:
        """Return when the next dial may start: `now` itself if at once."""
        self._fill(now)
        missing = 1.0 - self._tokens
        # The small slack keeps a caller who wakes exactly then from finding the bucket a rounding error short.
        by_tokens = now + missing / self.rate if missing > 1e-9 else now
        return max(by_tokens, self._held_until, self._flap_until)

    def take(self, now: float) -> None:
        """A dial starts. Call it only when `ready_at(now) <= now`."""
        assert self.ready_at(now) <= now
        self._tokens -= 1.0

    def succeeded(self) -> None:
        """A dial succeeded."""
        self.failures = 0
        self._held_until = -math.inf
        self.rate = min(self.base, self.rate + self.base / 10)

    def failed(self, now: float, *, status: int | None, retry_after: float | None) -> None:
        """A dial failed, for whatever reason."""
        self._fill(now)
        self.failures += 1
        if status in TOO_MANY:
            self.rate = max(self.rate / 2, self.base * FLOOR)
            self._tokens = min(self._tokens, 0.0)
        hold = min(SHORTEST * 2 ** min(self.failures - 1, 10), LONGEST) * self.rng.uniform(0.75, 1.25)
        asked = hold if retry_after is None else min(retry_after, ASKED)
        self._held_until = max(self._held_until, now + asked)

    def flapped(self, now: float) -> None:
        """A connection opened, and the server closed it before anything was asked of it."""
        self.flaps += 1
        hold = min(SHORTEST * 2 ** min(self.flaps - 1, 10), LONGEST) * self.rng.uniform(0.75, 1.25)
        self._flap_until = max(self._flap_until, now + hold)  # no dial that succeeds lifts this one

    def steady(self) -> None:
        """A connection has been of use."""
        self.flaps = 0

    def _fill(self, now: float) -> None:
        if self._filled_at == -math.inf:
            self._filled_at = now
        self._tokens = min(float(self.burst), self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now

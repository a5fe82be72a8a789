"""What things are expected to cost, learned from what they did cost. Pure.

Theory of operation
    Replaying a transcript takes `a + b * tokens` seconds to the first output, fitted online, per model, by least
    squares that forget slowly: the prior counts as a few observations and is soon outvoted. What it costs is the
    difference to a delta on a hot lane. A conversation's gap (the time its tools take between two turns) is an
    exponential average of its own, beginning with everybody's.
"""

from __future__ import annotations

from attrs import define, field

KEEP = 0.98  # of the weight of everything seen, at each new observation: a memory of about 50
PRIOR_BASE, PRIOR_PER_TOKEN = 0.3, 20e-6  # s, s a token: what hosted models do when nothing is cached
PRIOR_HYDRATION = 0.2  # s more than hot, to load a stored response
PRIOR_GAP = 2.0  # s between two turns, before any was seen


@define(eq=False)
class Line:
    """`y = a + b * x` with `a, b >= 0`, by least squares with exponential forgetting."""

    _w: float = field(default=0.0, init=False)
    _x: float = field(default=0.0, init=False)
    _y: float = field(default=0.0, init=False)
    _xx: float = field(default=0.0, init=False)
    _xy: float = field(default=0.0, init=False)

    @classmethod
    def through(cls, base: float, slope: float, *, at: tuple[float, ...]) -> Line:
        """Return a line that has seen exact points of `base + slope * x` at these places."""
        line = cls()
        for x in at:
            line.add(x, base + slope * x)
        return line

    def add(self, x: float, y: float) -> None:
        """Learn one point."""
        self._w = self._w * KEEP + 1.0
        self._x = self._x * KEEP + x
        self._y = self._y * KEEP + y
        self._xx = self._xx * KEEP + x * x
        self._xy = self._xy * KEEP + x * y

    def at(self, x: float) -> float:
        """Return the expected `y`; never negative, never falling with `x`."""
        if self._w == 0.0:
            return 0.0
        mean_x, mean_y = self._x / self._w, self._y / self._w
        spread = self._xx / self._w - mean_x * mean_x
        slope = max(0.0, (self._xy / self._w - mean_x * mean_y) / spread) if spread > 1e-9 else 0.0
        if slope * mean_x > mean_y:  # a line with a negative base: through the origin instead
            slope = mean_y / mean_x
        return max(0.0, mean_y + slope * (x - mean_x))


@define(eq=False)
class Average:
    """An exponential average."""

    value: float
    weight: float = 0.2  # of each new observation

    def add(self, value: float) -> None:
        """Learn one value."""
        self.value += self.weight * (value - self.value)


def _prior() -> Line:
    return Line.through(PRIOR_BASE, PRIOR_PER_TOKEN, at=(0.0, 20_000.0, 100_000.0))


@define(eq=False)
class ReplayCost:
    """What losing its lane costs a conversation of one model, in seconds to the first output."""

    _replays: Line = field(factory=_prior, init=False)
    _hydrations: Average = field(factory=lambda: Average(PRIOR_BASE + PRIOR_HYDRATION), init=False)
    _hot: Average = field(factory=lambda: Average(PRIOR_BASE), init=False)

    def saw(self, reason: str, *, tokens: int, seconds: float) -> None:
        """A turn placed for this reason, with a context of `tokens`, took so long from its send."""
        if reason == "hot":
            self._hot.add(seconds)
        elif reason == "hydrated":
            self._hydrations.add(seconds)
        else:
            self._replays.add(tokens, seconds)

    def cold(self, tokens: int, *, stored: bool) -> float:
        """Return how long a turn takes on a lane that does not remember its conversation."""
        return self._hydrations.value if stored else self._replays.at(tokens)

    def of(self, tokens: int, *, stored: bool) -> float:
        """Return how much longer that is than on one that does."""
        return max(0.0, self.cold(tokens, stored=stored) - self._hot.value)


@define(eq=False)
class Estimates:
    """Everything that placement wants to know in advance."""

    gap: Average = field(factory=lambda: Average(PRIOR_GAP, 0.05), init=False)  # everybody's
    _replay: dict[str, ReplayCost] = field(factory=dict, init=False)

    def replay(self, model: str) -> ReplayCost:
        """Return the replay cost of one model."""
        cost = self._replay.get(model)
        if cost is None:
            cost = self._replay[model] = ReplayCost()
        return cost

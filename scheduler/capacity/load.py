"""What is asked of a pool: how many runs, how many turns each, how long they take, how much they say. Pure.

Theory of operation
    A load is open (so many runs begin in an hour, whatever becomes of those before) or closed (so many runs at a
    time; when one ends the next begins, as in a fleet). It makes an endless sequence of runs, always the same from
    the same random numbers: the k-th run is the same run in every simulation, so that two pools are compared on one
    load and their difference is theirs.

    A turn is described by what it would be on a lane that remembers its conversation. What a replay takes longer is
    the load's business as well, because it is a fact of the model behind the endpoint: `base + per token`, as
    `scheduler/estimate.py` fits it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from attrs import evolve, field, frozen

from pool.errors import SettingsError
from scheduler.capacity.variate import Fixed, Variate
from scheduler.estimate import PRIOR_BASE, PRIOR_PER_TOKEN


class PlannedTurn(NamedTuple):
    """One turn: seconds on a hot lane, new tokens to read and to write, seconds until the next turn is called."""

    seconds: float
    reads: int
    writes: int
    gap: float


Run = list[PlannedTurn]


@frozen(kw_only=True)
class Load:
    """What runs ask of a pool. Times are in seconds."""

    runs_per_hour: float | None = None  # open: they begin at random, independently
    concurrency: int | None = None  # closed: so many at a time
    turns: Variate = field(factory=lambda: Fixed(10))  # of one run
    turn_seconds: Variate = field(factory=lambda: Fixed(4.0))  # from send to end, on a lane that is hot
    tool_seconds: Variate = field(factory=lambda: Fixed(2.0))  # from a turn's end to the next one's call
    first_tokens: Variate = field(factory=lambda: Fixed(3000))  # that the model reads in a run's first turn
    tokens_per_turn: Variate = field(factory=lambda: Fixed(1000))  # that each turn adds to the context
    output_tokens: Variate = field(factory=lambda: Fixed(200))  # of these, written by the model
    # A replay takes this much longer than a hot turn, and for each token of its context
    replay_base: float = 0.0
    replay_per_token: float = PRIOR_PER_TOKEN
    first_output: float = PRIOR_BASE  # of a hot turn, from its send: what the placement learns costs from
    dial: Variate = field(factory=lambda: Fixed(0.3))
    losses_per_hour: float = 0.0  # of one connection
    recorded: tuple[tuple[PlannedTurn, ...], ...] = field(default=(), repr=False)  # runs to draw from instead

    def __attrs_post_init__(self) -> None:
        if (self.runs_per_hour is None) is (self.concurrency is None):
            raise SettingsError(
                "runs_per_hour",
                self.runs_per_hour,
                "give either this (an open load) or concurrency (a fleet)",
            )

    def runs(self, rng: random.Random) -> Iterator[Run]:
        """Make runs, for ever."""
        while self.recorded:
            yield list(rng.choice(self.recorded))
        turns, first, more, written = (
            self.turns.at,
            self.first_tokens.at,
            self.tokens_per_turn.at,
            self.output_tokens.at,
        )
        seconds, gap, draw = self.turn_seconds.at, self.tool_seconds.at, rng.random
        while True:
            run: Run = []
            for index in range(max(1, round(turns(draw())))):
                writes = round(written(draw()))
                added = round(more(draw())) if index else round(first(draw())) + writes
                run.append(
                    PlannedTurn(
                        seconds(draw()), max(1, added - writes), max(1, min(writes, added)), gap(draw())
                    )
                )
            yield run

    def replay_seconds(self, tokens: float) -> float:
        """Return how much longer a turn takes whose context of so many tokens has to be read again."""
        return max(0.0, self.replay_base + self.replay_per_token * tokens)

    @property
    def mean_turns(self) -> float:
        """Turns of a run, on average."""
        if self.recorded:
            return sum(map(len, self.recorded)) / len(self.recorded)
        if isinstance(self.turns, Fixed):
            return float(max(1, round(self.turns.value)))
        return max(1.0, self.turns.mean)

    @property
    def mean_seconds(self) -> float:
        """Seconds of a hot turn, on average."""
        if self.recorded:
            return self._mean_of_recorded(0)
        return self.turn_seconds.mean

    @property
    def mean_gap(self) -> float:
        """Seconds between two turns, on average."""
        if self.recorded:
            return self._mean_of_recorded(3)
        return self.tool_seconds.mean

    @property
    def run_seconds(self) -> float:
        """How long a run takes that never waits and never replays but at its start."""
        start = self.replay_seconds(self.first_tokens.mean)
        return start + self.mean_turns * self.mean_seconds + (self.mean_turns - 1) * self.mean_gap

    @property
    def rate(self) -> float:
        """Runs a second, if nobody waits."""
        if self.runs_per_hour is not None:
            return self.runs_per_hour / 3600
        assert self.concurrency is not None
        return self.concurrency / max(self.run_seconds, 1e-9)

    @property
    def turn_rate(self) -> float:
        """Turns a second, if nobody waits."""
        return self.rate * self.mean_turns

    @property
    def offered(self) -> float:
        """Turns in flight at a time, if nobody waits: Little's law."""
        return self.turn_rate * self.mean_seconds + self.rate * self.replay_seconds(self.first_tokens.mean)

    @property
    def alive(self) -> float:
        """Runs at a time, if nobody waits: Little's law."""
        return self.rate * self.run_seconds

    @property
    def tokens_per_minute(self) -> float:
        """What a server counts against a limit: the whole context of each turn, and its answer."""
        if self.recorded:
            total = sum(_counted(run) for run in self.recorded) / len(self.recorded)
        else:
            turns, more = self.mean_turns, self.tokens_per_turn.mean
            # The sum of contexts grows with the square of the turns, so their spread counts.
            squares = sum(max(1, round(self.turns.at((step + 0.5) / 200))) ** 2 for step in range(200)) / 200
            start = self.first_tokens.mean + self.output_tokens.mean
            total = turns * start + more * (squares - turns) / 2
        return total * self.rate * 60

    def times(self, factor: float) -> Load:
        """Return so many times the load."""
        if self.runs_per_hour is not None:
            return evolve(self, runs_per_hour=self.runs_per_hour * factor)
        assert self.concurrency is not None
        return evolve(self, concurrency=max(1, round(self.concurrency * factor)))

    def slower_tools(self, factor: float) -> Load:
        """Return the same with tools that take so many times as long."""
        slower = tuple(tuple(turn._replace(gap=turn.gap * factor) for turn in run) for run in self.recorded)
        return evolve(self, tool_seconds=self.tool_seconds.scaled(factor), recorded=slower)

    def _mean_of_recorded(self, place: int) -> float:
        last = 1 if place == 3 else 0  # nothing comes after the last turn
        values = [turn[place] for run in self.recorded for turn in run[: len(run) - last]]
        return sum(values) / max(1, len(values))


def _counted(run: tuple[PlannedTurn, ...]) -> int:
    context = total = 0
    for turn in run:
        context += turn.reads + turn.writes
        total += context
    return total

"""The least number of connections that reaches a target: bisection over simulations with common random numbers. Pure.

Theory of operation
    All candidates are simulated under the same load, run by run and turn by turn, so what differs between two of them
    is the pool and not luck, and "reaches the target" is all but monotone in the number of connections. It is first
    asked of a pool with room for everybody: if that fails, no number of connections helps, and what does fail is
    said. Then the least one is bracketed and bisected.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import define, field, frozen

from pool.errors import SettingsError
from scheduler.capacity.scenario import Scenario
from scheduler.capacity.simulation import simulate
from scheduler.capacity.tally import Outcome, merge
from scheduler.capacity.units import show_amount, show_seconds, show_share

MOST = 20_000  # connections, where nobody gives a limit
TOKENS, IN_FLIGHT, LANES = "tokens per minute", "in-flight", "lanes"


@frozen(kw_only=True)
class Target:
    """What is wanted; None: whatever it is."""

    p99_wait: float | None = None  # seconds, for admission and a lane together
    hot: float | None = None  # of the turns after a run's first

    def __str__(self) -> str:
        wanted = []
        if self.p99_wait is not None:
            wanted.append(f"p99 wait at most {show_seconds(self.p99_wait)}")
        if self.hot is not None:
            wanted.append(f"hot at least {show_share(self.hot)}")
        return " and ".join(wanted) or "no target"

    def waits_well(self, outcome: Outcome) -> bool:
        """Whether the waits are as wanted."""
        return not outcome.overloaded and not outcome.refused and outcome.p99 <= _or_inf(self.p99_wait)

    def hot_enough(self, outcome: Outcome) -> bool:
        """Whether enough turns are hot."""
        return self.hot is None or outcome.hot >= self.hot

    def met(self, outcome: Outcome) -> bool:
        """Whether all is as wanted."""
        return self.waits_well(outcome) and self.hot_enough(outcome)


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value


class Unreachable(SettingsError):
    """No number of connections reaches the target. Says what binds."""

    def __init__(self, target: Target, message: str, *, binding: str) -> None:
        self.binding = binding
        super().__init__("target", str(target), message)

    def __str__(self) -> str:
        return f"{self.value}: {self.remedy}"


@define(eq=False)
class Trials:
    """Simulations of one scenario with pools of different sizes; none is made twice."""

    scenario: Scenario
    turns: int
    on_trial: Callable[[], None] = field(default=lambda: None)
    _known: dict[tuple[int, int | None, int], Outcome] = field(factory=dict, init=False)

    def of(self, connections: int, min_idle: int | None = None, seed: int = 1) -> Outcome:
        """Simulate one. Without `min_idle` the pool is warm throughout."""
        key = connections, min_idle, seed
        if key not in self._known:
            self._known[key] = simulate(
                self.scenario.with_connections(connections, min_idle), seed=seed, turns=self.turns
            )
            self.on_trial()
        return self._known[key]

    @property
    def simulated(self) -> int:
        """Turns that were simulated and counted."""
        return sum(outcome.turns for outcome in self._known.values())

    def several(self, connections: int, min_idle: int | None, seeds: int) -> list[Outcome]:
        """Simulate one from several seeds."""
        return [self.of(connections, min_idle, seed) for seed in range(1, seeds + 1)]


@frozen(kw_only=True)
class Found:
    """The least number of connections, and what failed with one less."""

    connections: int
    binding: str


def least(trials: Trials, target: Target, *, most: int | None = None, seeds: int = 1) -> Found:
    """Return the least number of connections that meets the target, at most `most`.

    Raises:
        Unreachable: there is none.
    """
    scenario = trials.scenario
    check_tokens(scenario, target)
    alive = scenario.load.alive + scenario.load.offered / 4
    plenty = max(2, math.ceil(1.2 * (alive + 4 * math.sqrt(alive)) / scenario.lanes.in_flight))
    if most is None and plenty > MOST:
        raise Unreachable(
            target,
            f"one process would need some {plenty:,} connections, and no more than {MOST:,} are simulated: give "
            "--cpu-per-turn its true value, or plan for a part of the load",
            binding=IN_FLIGHT,
        )
    high = min(plenty, MOST if most is None else most)

    def outcome(connections: int) -> Outcome:
        return merge(trials.several(connections, None, seeds))

    while not target.met(outcome(high)):
        # Waiting makes runs longer, so that more are alive than Little's law says without it: look once further.
        if high == (MOST if most is None else most) or high >= 2 * plenty:
            raise _unreachable(scenario, target, outcome(high), high, most)
        high = min(2 * high, MOST if most is None else most)
    low = 0  # does not meet it: there is no pool of no connections
    if scenario.load.concurrency is None:
        low = min(high - 1, math.floor(0.9 * scenario.load.offered / scenario.lanes.in_flight))
        if low and target.met(outcome(low)):
            low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if target.met(outcome(middle)):
            high = middle
        else:
            low = middle
    return Found(connections=high, binding=_binding(target, outcome(low) if low else None))


def _binding(target: Target, below: Outcome | None) -> str:
    if below is None or not target.waits_well(below):
        return IN_FLIGHT
    return LANES


def check_tokens(scenario: Scenario, target: Target) -> None:
    """Refuse at once a load that asks for more tokens than there are.

    Raises:
        Unreachable: it does.
    """
    budget, load = scenario.tokens_per_minute, scenario.load
    if budget is not None and load.concurrency is None and load.tokens_per_minute > budget:
        raise Unreachable(
            target,
            "no number of connections reaches this: tokens per minute bind first. The load asks for "
            f"{show_amount(load.tokens_per_minute)} a minute, contexts included, and the budget is "
            f"{show_amount(budget)}: {show_amount(load.rate * 3600 * budget / load.tokens_per_minute)} runs an hour "
            "would use all of it",
            binding=TOKENS,
        )


def _unreachable(
    scenario: Scenario, target: Target, outcome: Outcome, tried: int, most: int | None
) -> Unreachable:
    reached = (
        "the line grows without end"
        if outcome.overloaded
        else f"p99 wait {show_seconds(outcome.p99)}, {outcome.hot:.1%} hot"
    )
    if outcome.held_by_tokens and not target.waits_well(outcome):
        budget = scenario.tokens_per_minute or 0
        return Unreachable(
            target,
            "no number of connections reaches this: tokens per minute bind first. With "
            f"{tried} connections, enough for everybody, turns still wait for the budget of "
            f"{show_amount(budget)} ({reached})",
            binding=TOKENS,
        )
    if most is not None and tried == most:
        return Unreachable(
            target,
            f"at most {most} connections do not reach this ({reached}): allow more, or lower the target",
            binding=IN_FLIGHT if not target.waits_well(outcome) else LANES,
        )
    lost = {name: count for name, count in outcome.reasons.items() if name not in ("hot", "replay:new")}
    chief = max(lost, key=lost.__getitem__, default="replay:new")
    why = (
        f"most of what is not hot is {chief}"
        if not target.hot_enough(outcome)
        else "what remains is not a lack of connections"
    )
    return Unreachable(
        target,
        f"no number of connections reaches this: {tried} are enough for everybody, and give {reached}; {why}",
        binding=LANES,
    )

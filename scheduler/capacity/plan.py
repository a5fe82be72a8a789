"""From a load and a target to a recommendation, with everything that is needed to judge it. Pure.

Theory of operation
    CPU says how many processes there must be; the load is split evenly between them, and one of them is simulated,
    because that is what its pool will see: several small pools are not one big one. The least number of connections
    is searched from one seed, with common random numbers, and then moved up or down until it is the least that
    reaches the target from several seeds together: their pooled figures are what is promised, their spread says how
    sure it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import evolve, field, frozen

from pool.roster import spread
from pool.settings import Endpoint, PoolSettings
from scheduler.capacity.load import Load
from scheduler.capacity.queueing import Queue, interval
from scheduler.capacity.scenario import Scenario
from scheduler.capacity.search import IN_FLIGHT, LANES, TOKENS, Target, Trials, Unreachable, least
from scheduler.capacity.tally import Outcome, merge
from scheduler.settings import SchedulerSettings

CPU_PER_TURN = 0.001257  # s: docs/benchmarks.md, 20 runs at once with 40 deltas a turn
CPU_PER_DIAL = 0.0006  # s, and of an idle connection each second: docs/benchmarks.md, idle sockets
CPU_PER_SOCKET = 160e-6 / 20
CPU_SHARE = 0.6  # of a core that one event loop may use on average, so that its own queue stays short
CLOSE = 0.8  # of a limit: worth a warning
FEW = 10  # connections, of which each number is shown
STEPS = 50  # a number of connections is told to this part of itself


@frozen(kw_only=True)
class Prices:
    """Of a million tokens, in whatever money."""

    input: float = 0.0
    cached: float = 0.0
    output: float = 0.0

    def of(self, outcome: Outcome) -> float:
        """Return what an hour costs. What is replayed is taken to be read without the cache's discount."""
        read = outcome.fresh_tokens + outcome.replayed_tokens + outcome.moved_tokens
        total = read * self.input + outcome.cached_tokens * self.cached + outcome.written_tokens * self.output
        return outcome.per_hour(total) / 1e6

    def of_replays(self, outcome: Outcome) -> float:
        """Return how much of it would not be there if every turn were hot."""
        again = outcome.replayed_tokens + outcome.moved_tokens
        return outcome.per_hour(again * (self.input - self.cached)) / 1e6


@frozen(kw_only=True)
class Question:
    """What the planner is asked."""

    load: Load
    endpoint: Endpoint
    target: Target = field(factory=lambda: Target(p99_wait=0.05, hot=0.95))
    settings: SchedulerSettings = field(factory=SchedulerSettings)
    pool: PoolSettings = field(factory=PoolSettings)
    prices: Prices | None = None
    cpu_per_turn: float = CPU_PER_TURN
    most: int | None = None  # connections of one process
    turns: int = 10_000  # in one simulation
    seeds: int = 5
    notes: tuple[str, ...] = ()  # where the load comes from, and what had to be assumed


@frozen(kw_only=True)
class Limit:
    """How much of a limit is used, by one process."""

    name: str
    used: float
    limit: float
    unit: str

    @property
    def share(self) -> float:
        """The part of it that is used."""
        return self.used / self.limit if self.limit else math.inf


@frozen(kw_only=True)
class Point:
    """What one number of connections gives."""

    connections: int
    outcome: Outcome
    utilisation: float


@frozen(kw_only=True)
class Plan:
    """The answer, for each of `processes` that share the load evenly."""

    question: Question
    processes: int
    scenario: Scenario  # of one process, as recommended
    outcome: Outcome  # of one process, all seeds together
    p50_range: tuple[float, float]
    p99_range: tuple[float, float]
    hot_range: tuple[float, float]
    binding: str
    limits: tuple[Limit, ...]
    curve: tuple[Point, ...]
    below: Outcome | None  # with one connection less
    met: bool  # by all seeds together; else the search's single seed was lucky
    simulated: int = 0  # turns

    @property
    def connections(self) -> int:
        """Of one process."""
        return self.scenario.pool.max_connections

    @property
    def queue(self) -> Queue:
        """The M/M/c queue with the same lanes, calls and mean service."""
        rate = self.outcome.turns / self.outcome.seconds
        service = self.outcome.busy / rate if rate else 0.0
        return Queue(servers=self.scenario.capacity, rate=rate, service=service)

    @property
    def erlang_connections(self) -> int | None:
        """How many connections Erlang C asks for, if only the waits mattered."""
        wanted = self.question.target.p99_wait
        if wanted is None:
            return None
        queue, lanes = self.queue, self.scenario.lanes.in_flight
        connections = max(1, math.ceil(queue.offered / lanes))
        while evolve(queue, servers=connections * lanes).wait(0.99) > wanted:
            connections += 1
        return connections

    @property
    def dials_per_minute(self) -> float:
        """Of all processes, at steady state."""
        return self.outcome.per_hour(self.outcome.opened) / 60 * self.processes


def processes_for(load: Load, cpu_per_turn: float) -> int:
    """Return how many processes the CPU of the turns asks for."""
    return max(1, math.ceil(load.turn_rate * cpu_per_turn / CPU_SHARE))


def plan_for(question: Question, *, on_trial: Callable[[], None] = lambda: None) -> Plan:
    """Answer a question.

    Raises:
        Unreachable: no number of connections reaches the target.
        SettingsError: a value is out of range.
    """
    processes = processes_for(question.load, question.cpu_per_turn)
    scenario = Scenario(
        load=question.load.times(1 / processes) if processes > 1 else question.load,
        endpoint=question.endpoint,
        pool=question.pool,
        settings=_shared(question.settings, processes),
    )
    trials = Trials(scenario, question.turns, on_trial)
    target = question.target
    found = least(trials, target, most=question.most)
    connections, min_idle, several = _confirm(trials, question, found.connections)
    outcome = merge(several)
    recommended = _recommended(scenario, connections, min_idle)
    below = merge(trials.several(connections - 1, None, question.seeds)) if connections > 1 else None
    curve = _curve(trials, connections, question.seeds)
    limits = _limits(question, recommended, outcome, processes)
    return Plan(
        question=question,
        processes=processes,
        scenario=recommended,
        outcome=outcome,
        p50_range=interval([one.p50 for one in several]),
        p99_range=interval([one.p99 for one in several]),
        hot_range=interval([one.hot for one in several]),
        binding=_binding(target, below, limits, outcome),
        limits=limits,
        curve=curve,
        below=below,
        met=target.met(outcome),
        simulated=trials.simulated,
    )


def needed(scenario: Scenario, target: Target, *, turns: int, most: int | None = None) -> int | None:
    """Return how many connections a scenario needs; None if no number would do."""
    try:
        return least(Trials(scenario, turns), target, most=most).connections
    except Unreachable:
        return None


def _shared(settings: SchedulerSettings, processes: int) -> SchedulerSettings:
    """Split the budgets: one key's limit is shared by all processes."""
    budgets = {
        model: evolve(budget, tokens_per_minute=max(1, budget.tokens_per_minute // processes))
        for model, budget in settings.budgets.items()
        if budget.tokens_per_minute is not None
    }
    return settings.with_(budgets={**settings.budgets, **budgets})


def _confirm(trials: Trials, question: Question, connections: int) -> tuple[int, int, list[Outcome]]:
    """Return the least number of connections for several seeds, and the least warm minimum that does."""
    target, seeds = question.target, question.seeds
    most = math.inf if question.most is None else question.most
    step = max(1, connections // STEPS)

    def reaches(size: int) -> bool:
        return target.met(merge(trials.several(size, None, seeds)))

    if reaches(connections):
        while connections > step and reaches(connections - step):
            connections -= step
    else:
        top = min(most, 2 * connections)
        while connections + step <= top and not reaches(connections):
            connections += step
    lanes, min_idle = connections * trials.scenario.lanes.count, 1
    while min_idle < lanes and not target.met(merge(trials.several(connections, min_idle, seeds))):
        min_idle *= 4
    min_idle = min(min_idle, lanes)
    return connections, min_idle, trials.several(connections, min_idle, seeds)


def _recommended(scenario: Scenario, connections: int, min_idle: int) -> Scenario:
    sized = scenario.with_connections(connections, min_idle)
    # Connections dialled together come to their line within that time; each needs a place for as long as a dial.
    within = spread(sized.pool, scenario.endpoint.max_age)
    together = connections * scenario.load.dial.mean / max(within, 1.0)
    overlap = max(scenario.pool.rotation_overlap, math.ceil(3 * together))
    return evolve(sized, pool=sized.pool.with_(rotation_overlap=overlap))


def _curve(trials: Trials, connections: int, seeds: int) -> tuple[Point, ...]:
    """Try other sizes; those beside the recommended one from as many seeds, because little is between them."""
    near = {connections + step for step in (-1, 0, 1)}
    if connections <= FEW:
        sizes = set(range(connections - 3, connections + 5))
    else:
        sizes = near | {round(connections * share) for share in (0.6, 0.7, 0.8, 0.9, 1.1, 1.25, 1.5)}
    points = []
    for size in sorted(size for size in sizes if size > 0):
        outcome = merge(trials.several(size, None, seeds if size in near else 1))
        use = outcome.busy / (size * trials.scenario.lanes.in_flight)
        points.append(Point(connections=size, outcome=outcome, utilisation=use))
    return tuple(points)


def _limits(question: Question, scenario: Scenario, outcome: Outcome, processes: int) -> tuple[Limit, ...]:
    seconds = outcome.seconds
    turns, dials = outcome.turns / seconds, outcome.opened / seconds
    cpu = turns * question.cpu_per_turn + dials * CPU_PER_DIAL + outcome.open * CPU_PER_SOCKET
    limits = [
        Limit(name=IN_FLIGHT, used=outcome.busy, limit=scenario.capacity, unit="responses at a time"),
        Limit(
            name=LANES,
            used=outcome.alive,
            limit=scenario.pool.max_connections * scenario.lanes.count,
            unit="conversations",
        ),
        Limit(name="dial rate", used=dials * 60, limit=scenario.pool.dial_rate * 60, unit="dials a minute"),
        Limit(name="CPU", used=cpu, limit=CPU_SHARE, unit="of a core, each process"),
    ]
    if scenario.tokens_per_minute is not None:
        counted = (
            outcome.fresh_tokens + outcome.replayed_tokens + outcome.cached_tokens + outcome.written_tokens
        )
        limits.append(
            Limit(
                name=TOKENS,
                used=counted / seconds * 60 * processes,
                limit=scenario.tokens_per_minute * processes,
                unit="tokens a minute",
            )
        )
    return tuple(limits)


def _binding(target: Target, below: Outcome | None, limits: tuple[Limit, ...], outcome: Outcome) -> str:
    """Return the limit that one would have to lift first."""
    tokens = next((limit for limit in limits if limit.name == TOKENS), None)
    if tokens is not None and (tokens.share > CLOSE or outcome.held_by_tokens > outcome.turns / 100):
        return TOKENS
    dials = next(limit for limit in limits if limit.name == "dial rate")
    if dials.share > CLOSE:
        return dials.name
    if below is None or not target.waits_well(below):
        return IN_FLIGHT
    return LANES

"""Whether a plan is true: record a load, plan from the recording, run the plan, and compare.

    python -m bench.capacity [--case NAME] [--runs 1000] [--repeat 3] [--seed 1]

Everything but the kernel is real: the scheduler, the pool, the frames, and an emulator with a latency model, over
memory streams and on trio's mock clock, so that hours take seconds. Runs begin at random (a Poisson process) and wait
for nobody; each takes its turns with tools between them. The load is first recorded on a pool that is far too large
(so that nothing of the answer is in the recording), written as an `.hlog`, and read back. Then the planner is told
how many runs to expect, says how many connections the target takes, and what that gives; and other runs of the same
load, from another seed, are made on just that pool.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import trio.testing
from attrs import evolve, field, frozen

from pool import Endpoint, Lanes, PoolSettings
from pool.dial import Dialer
from pool.emulator import Emulator, EmulatorSettings, Latency
from scheduler.capacity.plan import Plan, Question, plan_for
from scheduler.capacity.recorded import load_from
from scheduler.capacity.search import Target
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.stats import SchedulerStats
from scheduler.telemetry.hlog_format import header, lines_of
from scheduler.telemetry.intervals import Interval
from scheduler.turns import TurnRequest

LATENCY = Latency(base=0.35, input=0.00005, output=0.012)
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
DIAL = 0.2  # s
WARM_UP = 0.2  # of the runs, before it counts
PLENTY = 400  # connections, to record on
EPOCH = 1_700_000_000.0


@frozen(kw_only=True)
class Case:
    """A load, an endpoint and a target. Times in seconds."""

    name: str
    runs_per_second: float
    turns: tuple[int, int]  # least and most
    gap: float  # mean, of a lognormal
    tokens: int  # mean, that a run begins with
    target: Target
    lanes: Lanes = field(factory=Lanes.single)
    max_age: float = 3600.0


CASES = (
    Case(
        name="waits",
        runs_per_second=1.5,
        turns=(4, 12),
        gap=0.5,
        tokens=2_000,
        target=Target(p99_wait=0.3),
    ),
    Case(
        name="hot",
        runs_per_second=1.0,
        turns=(4, 12),
        gap=2.0,
        tokens=10_000,
        target=Target(p99_wait=0.5, hot=0.9),
    ),
    Case(
        name="lanes",
        runs_per_second=4.0,
        turns=(4, 12),
        gap=2.0,
        tokens=10_000,
        target=Target(p99_wait=0.2, hot=0.95),
        lanes=Lanes.multi(in_flight=8, named=16),
    ),
    Case(
        name="short lives",
        runs_per_second=1.0,
        turns=(4, 12),
        gap=2.0,
        tokens=10_000,
        target=Target(p99_wait=0.5, hot=0.9),
        max_age=120.0,
    ),
)


@frozen(kw_only=True)
class Measured:
    """What a pool really gave, after the warm-up."""

    stats: SchedulerStats
    seconds: float

    @property
    def hot(self) -> float:
        """The share of the returning turns that were hot."""
        placements = self.stats.placements
        returning = self.stats.turns - placements.get("replay:new", 0)
        return placements.get("hot", 0) / returning if returning else 1.0


async def converse(scheduler: Scheduler, case: Case, rng: random.Random) -> None:
    """One run, from its first turn to its answer."""
    turns = rng.randint(*case.turns)
    script = f"calls={turns - 1} output_tokens={rng.randint(10, 60)}"
    request = TurnRequest(model="emulated", tools=[TOOL], options={"metadata": {"emulator": script}})
    conversation = scheduler.conversation()
    given: str | list[dict[str, str]] = "x" * int(4 * case.tokens * rng.lognormvariate(0.0, 0.5) / 1.133)
    while True:
        turn = await conversation.turn(given, request)
        if not turn.calls:
            break
        await trio.sleep(rng.lognormvariate(0.0, 0.7) * case.gap / 1.278)  # the mean of that distribution
        output = "y" * int(rng.lognormvariate(7.0, 0.5))
        given = [
            {"type": "function_call_output", "call_id": call.call_id, "output": output} for call in turn.calls
        ]
    conversation.close()


@asynccontextmanager
async def scheduler_for(case: Case, settings: PoolSettings, seed: int) -> AsyncIterator[Scheduler]:
    """Open a scheduler on an emulator of its own."""
    emulator = Emulator(EmulatorSettings(lanes=case.lanes, latency=LATENCY, max_age=case.max_age, seed=seed))
    endpoint = endpoint_of(case)
    async with trio.open_nursery() as servers:

        async def transport() -> trio.abc.Stream:
            await trio.sleep(DIAL)
            ours, theirs = trio.testing.memory_stream_pair()
            servers.start_soon(emulator.handle, theirs)
            return ours

        dial = Dialer(endpoint, settings, transport)
        async with open_scheduler(
            endpoint, pool_settings=settings, dial=dial, rng=random.Random(seed)
        ) as scheduler:
            yield scheduler
        servers.cancel_scope.cancel()


def endpoint_of(case: Case) -> Endpoint:
    """Return the endpoint that a case is about."""
    return Endpoint.emulator("http://emulator/v1", lanes=case.lanes).with_(max_age=case.max_age)


async def measure(case: Case, settings: PoolSettings, *, runs: int, seed: int) -> Measured:
    """Let so many runs come to a pool, and return what it gave after the warm-up."""
    rng = random.Random(f"{seed} arrivals")
    async with scheduler_for(case, settings, seed) as scheduler:
        before, began = scheduler.stats(), trio.current_time()
        async with trio.open_nursery() as going:
            for number in range(runs):
                if number == round(runs * WARM_UP):
                    before, began = scheduler.stats(), trio.current_time()
                going.start_soon(converse, scheduler, case, random.Random(f"{seed} {number}"))
                await trio.sleep(rng.expovariate(case.runs_per_second))
            after, ended = scheduler.stats(), trio.current_time()
            going.cancel_scope.cancel()
    return Measured(stats=after - before, seconds=ended - began)


def in_virtual_time(case: Case, settings: PoolSettings, *, runs: int, seed: int) -> Measured:
    """Do so at once."""

    async def main() -> Measured:
        return await measure(case, settings, runs=runs, seed=seed)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def record(case: Case, path: Path, *, runs: int, seed: int) -> Measured:
    """Record the load on a pool that is far too large."""
    plenty = PLENTY // case.lanes.in_flight
    settings = PoolSettings(max_connections=plenty, min_idle=plenty * case.lanes.count // 2)
    measured = in_virtual_time(case, settings, runs=runs, seed=seed)
    interval = Interval(endpoint="emulator", start=EPOCH, seconds=measured.seconds, stats=measured.stats)
    path.write_text(header(EPOCH) + lines_of(interval, base=EPOCH))
    return measured


def plan(case: Case, path: Path, *, turns: int, seeds: int) -> Plan:
    """Plan from the recording."""
    load = evolve(load_from([str(path)]).load, runs_per_hour=case.runs_per_second * 3600)
    question = Question(load=load, endpoint=endpoint_of(case), target=case.target, turns=turns, seeds=seeds)
    return plan_for(question)


def compare(
    case: Case, folder: Path, *, runs: int, repeat: int, seed: int, turns: int, seeds: int
) -> tuple[Plan, list[Measured]]:
    """Record, plan, and run the plan, so many times."""
    path = folder / f"{case.name.replace(' ', '-')}.hlog"
    record(case, path, runs=runs, seed=seed)
    planned = plan(case, path, turns=turns, seeds=seeds)
    return planned, [
        in_virtual_time(case, planned.scenario.pool, runs=runs, seed=seed + 1000 * time)
        for time in range(1, repeat + 1)
    ]


def rows(case: Case, planned: Plan, came: list[Measured]) -> list[str]:
    """Describe what was foreseen and what came: the mean, and the least and most of the repetitions."""
    outcome, pool = planned.outcome, planned.scenario.pool
    waits = [one.stats.wait for one in came]
    per_minute = 60 / outcome.seconds

    def row(
        name: str, foreseen: float, ends: tuple[float, float] | None, values: list[float], unit: str
    ) -> str:
        low, high = (f"{max(0.0, end):.4g}" for end in ends) if ends else ("", "")
        between = f"({low} to {high})" if ends else ""
        mean = sum(values) / len(values)
        seen = f"{mean:>9.4g} ({min(values):.4g} to {max(values):.4g}) {unit}"
        return f"  {name:<18}{foreseen:>9.4g} {between:<18}{seen}"

    def times(ends: tuple[float, float], factor: float) -> tuple[float, float]:
        return ends[0] * factor, ends[1] * factor

    return [
        f"{case.name}: {case.target}",
        f"  {planned.connections} connections, min_idle {pool.min_idle}; "
        f"{sum(one.stats.turns for one in came)} turns came",
        f"  {'':<18}{'foreseen':>9} {'(95 %)':<18}{'came':>9} (least to most)",
        row("wait p50", outcome.p50 * 1e3, times(planned.p50_range, 1e3), [w.p50 * 1e3 for w in waits], "ms"),
        row("wait p99", outcome.p99 * 1e3, times(planned.p99_range, 1e3), [w.p99 * 1e3 for w in waits], "ms"),
        row("wait mean", outcome.mean_wait * 1e3, None, [w.mean * 1e3 for w in waits], "ms"),
        row("hot", outcome.hot * 100, times(planned.hot_range, 100), [one.hot * 100 for one in came], "%"),
        row(
            "turns",
            outcome.turns / outcome.seconds,
            None,
            [one.stats.turns / one.seconds for one in came],
            "a second",
        ),
        row(
            "dials",
            outcome.opened * per_minute,
            None,
            [one.stats.pool.opened / one.seconds * 60 for one in came],
            "a minute",
        ),
        row(
            "open at the end", outcome.open, None, [float(one.stats.pool.open) for one in came], "connections"
        ),
    ]


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=[case.name for case in CASES], help="only this one")
    parser.add_argument("--runs", type=int, default=1000, help="in the recording and in each measurement")
    parser.add_argument("--repeat", type=int, default=3, help="measurements")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--turns", type=int, default=10_000, help="in each simulation")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if arguments.case in (None, case.name):
                planned, came = compare(
                    case,
                    Path(folder),
                    runs=arguments.runs,
                    repeat=arguments.repeat,
                    seed=arguments.seed,
                    turns=arguments.turns,
                    seeds=arguments.seeds,
                )
                print("\n".join(rows(case, planned, came)), flush=True)


if __name__ == "__main__":
    main()

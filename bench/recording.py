"""What recording costs a turn in CPU time: `python -m bench.recording --help`.

Laps of the tool loop of `bench.turn` alternate, in one process, with laps that only record: the same calls with the
values of a real turn, so many times that the clock can see them. So each ratio compares two laps a moment apart. That
nothing is left out is checked: a turn of the loop must have put as many values into histograms as one that is only
recorded.
"""

from __future__ import annotations

import argparse
import time

import trio
from attrs import evolve

from bench.compare import Spread, Target, ratios, table
from bench.job import MODEL, PROMPT, Job
from bench.machine import describe
from bench.server import emulator
from bench.tools import TOOLS
from bench.turn import loop
from pool.settings import Endpoint
from pool.stats.distribution import Distribution
from pool.stats.recorder import Recorder
from pool.stats.snapshot import Snapshot
from scheduler.admission.waits import Waits
from scheduler.agent import Agent
from scheduler.budget import ReplayBudget
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.stats import TurnRecorder
from scheduler.turns import Turn, TurnRequest

RUNS = 10
RECORDED = 20_000  # turns in a lap that only records
MOST = 0.02  # of a turn's CPU


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.recording")
    parser.add_argument("--laps", type=int, default=12, help="of each kind (default 12)")
    parser.add_argument("--turns", type=int, default=20, help="turns in a loop (default 20)")
    arguments = parser.parse_args()
    print(describe())
    print(
        f"loop      {RUNS} at once, {arguments.turns} turns each, as in bench.turn; {arguments.laps} laps\n"
    )
    with emulator() as url:
        job = evolve(loop(url, turns=arguments.turns), runs=RUNS)
        turns, recording = trio.run(measure, job, arguments.laps)
    share = ratios(recording, turns)
    rows = [
        ["a turn of the loop", f"{Spread(turns):.0f}", ""],
        ["recording it", f"{Spread(recording):.1f}", f"{share:.4f}"],
    ]
    print(table(["", "CPU, µs", "share of the turn"], rows))
    print(f"\n{Target('recording / turn', share.median, MOST)}")


async def measure(job: Job, laps: int) -> tuple[list[float], list[float]]:
    """Return the microseconds of a turn and of recording one, lap by lap."""
    agent = Agent(model=MODEL, instructions=job.instructions, tools=tuple(TOOLS.values()))
    agent = evolve(agent, options={"metadata": job.metadata}, max_turns=max(50, job.turns))
    turns: list[float] = []
    recording: list[float] = []
    async with open_scheduler(Endpoint.emulator(job.url)) as scheduler:
        sample = await scheduler.conversation().turn(PROMPT, TurnRequest(model=MODEL))
        await play(scheduler, agent, job.runs)  # warms up
        for _ in range(laps):
            before, started = scheduler.stats(), time.process_time()
            await play(scheduler, agent, job.runs)
            turns.append((time.process_time() - started) / (job.runs * job.turns) * 1e6)
            values = values_of(scheduler.stats() - before) / (job.runs * job.turns)
            taken, recorded = record(sample)
            recording.append(taken / RECORDED * 1e6)
            if values > recorded:
                raise RuntimeError(
                    f"a turn records {values:g} values, not the {recorded:g} that were measured"
                )
    return turns, recording


async def play(scheduler: Scheduler, agent: Agent, runs: int) -> None:
    """Play the loop."""
    async with trio.open_nursery() as nursery:
        for _ in range(runs):
            nursery.start_soon(agent.run, scheduler, PROMPT)


def values_of(stats: Snapshot) -> float:
    """Return how many values were recorded; the probe's are its own, four a second."""
    return sum(
        series.value.count
        for series in stats.series()
        if isinstance(series.value, Distribution) and series.path[-1] not in ("loop_lag", "dial", "run_waits")
    )


def record(turn: Turn) -> tuple[float, float]:
    """Record a turn again and again; return the seconds of CPU that it took, and the values put away for one."""
    pool, waits, recorder = Recorder(), Waits(), TurnRecorder(ReplayBudget(1))
    turn = evolve(turn, placement=evolve(turn.placement, reason="hot"))
    started = time.process_time()
    for number in range(RECORDED):
        late = number * 1e-6  # values that differ, as they do
        waits.waited("default", 0.0)
        pool.wait.record(late)
        pool.leased += 1
        pool.first_event.record(turn.first_event + late)
        pool.first_token.record(turn.first_event + late)
        pool.turn.record(turn.seconds + late)
        recorder.turn(turn, model=MODEL, waited=late, first_token=turn.first_event + late)
        recorder.came_back(MODEL, 0.01 + late)
    taken = time.process_time() - started
    kept = pool.wait, pool.first_event, pool.first_token, pool.turn
    seen = sum(sum(histogram.counts.values()) for histogram in kept) / RECORDED
    seen += sum(wait.count for wait in waits.snapshot().values()) / RECORDED
    model = recorder.models()[MODEL]
    seen += values_of(model) / RECORDED
    return taken, seen


if __name__ == "__main__":
    main()

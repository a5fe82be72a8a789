"""Everything breaks at random, and every run completes: `python -m bench.storm --help`.

Runs take their turns over real loopback sockets, while the server kills them with and without a goodbye, stalls,
refuses dials, limits, answers 429 and 503, fails responses, forgets them and drips; some messages are bigger than a
frame may be. What happens follows from the seed, but for the order in which the system lets tasks run. At the end:
every run completed; each turn's context is what the server saw; no tool ran twice. What recovery has sent again is
told in tokens.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections import Counter

import trio
from attrs import define, field, frozen

from bench.checked import asking, outputs, take
from bench.compare import table
from bench.machine import describe
from pool.emulator import EmulatorSettings, Latency, serve_emulator
from pool.emulator.stats import EmulatorStats
from pool.settings import Endpoint, Lanes, PoolSettings
from pool.stats import PoolStats
from pool.wire.events import ServerEvent
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.settings import SchedulerSettings
from scheduler.stats import SchedulerStats

# A lost connection takes all its lanes along, so where lanes are shared connections are lost less often.
DEADLY = (
    "drop,how=close,at=0,p={0}",
    "drop,how=close,at=5,code=1001,p={1}",
    "drop,how=abrupt,at=0,p={0}",
    "drop,how=abrupt,at=6,p={1}",
    "drop,how=midframe,at=3,p={1}",
    "stall,at=2,p={0}",
    "limit_create,p={0}",
    "limit_mid,at=4,p={0}",
)
HARMLESS = (
    "limit_idle,after=0.3,p=0.2",
    "rate_limit,p=0.02,retry_after=0.05",
    "rate_limit,p=0.01",
    "error,status=503,p=0.02",
    "failed,at=4,p=0.02",
    "forget,p=0.02",
    "refuse,status=503,p=0.1",
    "empty,p=0.1",
    "drip,seconds=0.002,at=2,p=0.1",
    "huge,bytes=3000000,turn=10,p=0.15",
)
FRAME_CAP = 256 * 1024
BIG = 300 * 1024  # characters of a tool's output that no frame takes
MAX_AGE = 20.0
PARALLEL = 2  # calls of a turn


class Twice(Exception):
    """A tool ran twice for one call."""


@frozen(kw_only=True)
class Weather:
    """How much of it, and where."""

    runs: int
    turns: int
    lanes: Lanes
    seed: int
    at_once: int  # runs

    @property
    def faults(self) -> str:
        """What goes wrong, and how often."""
        often = (0.01, 0.02) if self.lanes.count == 1 else (0.004, 0.008)
        return ";".join((*DEADLY, *HARMLESS)).format(*often)


@define
class Aftermath:
    """What came of it."""

    weather: Weather
    executed: Counter[str]
    scheduler: SchedulerStats
    pool: PoolStats
    server: EmulatorStats
    completed: int = 0
    seconds: float = 0.0
    wrong: list[Exception] = field(factory=list)

    @property
    def complaints(self) -> list[str]:
        """Return what should not have happened."""
        weather, twice = self.weather, self.executed.total() - len(self.executed)
        calls = weather.runs * (weather.turns - 1) * PARALLEL
        failed = Counter(f"{type(error).__name__}: {error}" for error in self.wrong)
        told = [f"{times} x {what}" for what, times in failed.items()]
        if self.completed != weather.runs:
            told.append(f"{self.completed} of {weather.runs} runs completed")
        if self.scheduler.turns != weather.runs * weather.turns:
            told.append(f"{self.scheduler.turns} turns, not {weather.runs * weather.turns}")
        if twice or len(self.executed) != calls:
            told.append(f"{len(self.executed)} of {calls} tool calls executed, {twice} of them twice")
        if self.pool.leased_lanes or self.pool.waiting:
            told.append(f"{self.pool.leased_lanes} lanes leased, {self.pool.waiting} waiting at the end")
        if self.server.crashes:
            told.append(f"the emulator crashed {self.server.crashes} times")
        return told


async def storm(weather: Weather) -> Aftermath:
    """Serve, and run all of it."""
    single = weather.lanes.count == 1
    server = EmulatorSettings(
        faults=weather.faults,
        seed=weather.seed,
        lanes=weather.lanes,
        latency=Latency(base=0.002),
        max_age=MAX_AGE,
        frame_cap=FRAME_CAP,
        close_timeout=0.5,
    )
    pool = PoolSettings(
        max_connections=12 if single else 4,
        dial_rate=200,
        dial_attempts=8,
        close_grace=0.5,
        stall_timeout=1.0,
        keepalive_interval=1.0,
        keepalive_timeout=1.0,
    )
    settings = SchedulerSettings(attempts=25, backoff=0.02, backoff_max=0.2)
    executed, wrong, completed = Counter[str](), list[Exception](), 0
    began = time.perf_counter()
    async with serve_emulator(server) as running:
        endpoint = Endpoint.emulator(running.url, lanes=weather.lanes)
        endpoint = endpoint.with_(max_age=MAX_AGE, frame_cap=FRAME_CAP)
        async with (
            open_scheduler(
                endpoint, pool_settings=pool, settings=settings, rng=random.Random(weather.seed)
            ) as scheduler,
            trio.open_nursery() as nursery,
        ):
            slots = trio.CapacityLimiter(weather.at_once)

            async def one(number: int) -> None:
                nonlocal completed
                async with slots:
                    try:
                        await _run(scheduler, weather, number, executed)
                        completed += 1
                    except Exception as error:  # told at the end, and the others go on
                        wrong.append(error)

            for number in range(weather.runs):
                nursery.start_soon(one, number)
    return Aftermath(
        weather,
        executed,
        scheduler.stats(),
        scheduler.pool.stats(),
        running.emulator.stats,
        completed,
        time.perf_counter() - began,
        wrong,
    )


async def _run(scheduler: Scheduler, weather: Weather, number: int, executed: Counter[str]) -> None:
    """One agent: turns of two tools each, then the answer; one in eight reads something big on the way."""
    conversation = scheduler.conversation(name=f"run {number}", store=number % 3 == 0)
    request = asking(f"calls={weather.turns - 1} parallel={PARALLEL} reasoning={number % 2}")
    on_event = _listen if number % 2 else None
    turn = await take(conversation, f"run {number}", request, on_event=on_event)
    taken = 1
    while turn.calls:
        for call in turn.calls:
            executed[f"{number}/{call.call_id}"] += 1
        big = number % 8 == 5 and taken == weather.turns // 2
        turn = await take(
            conversation, outputs(turn, "x" * BIG if big else "seen"), request, on_event=on_event
        )
        taken += 1
    if taken != weather.turns:
        raise AssertionError(f"{conversation.name} took {taken} turns, not {weather.turns}")
    conversation.close()


async def _listen(event: ServerEvent) -> None:
    await trio.lowlevel.checkpoint()


def main() -> None:
    """Let it blow, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.storm")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--turns", type=int, default=20, help="of a run (default 20)")
    parser.add_argument("--at-once", type=int, default=40, help="runs that go on at once (default 40)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lanes", choices=["single", "multi", "both"], default="both")
    arguments = parser.parse_args()
    logging.getLogger("warmline").setLevel(logging.ERROR)  # or it tells of every lost connection
    print(f"{describe()}\n\n{arguments.runs} runs of {arguments.turns} turns, seed {arguments.seed}\n")
    rows, complaints = list[list[str]](), list[str]()
    for name, lanes in (("single", Lanes.single()), ("multi", Lanes.multi(in_flight=8, named=12))):
        if arguments.lanes in (name, "both"):
            weather = Weather(
                runs=arguments.runs,
                turns=arguments.turns,
                lanes=lanes,
                seed=arguments.seed,
                at_once=arguments.at_once,
            )
            done = trio.run(storm, weather)
            complaints += [f"{name}: {complaint}" for complaint in done.complaints]
            rows.append(_row(name, done))
    header = [
        "lanes",
        "runs",
        "turns",
        "tools",
        "lost",
        "recovered",
        "over HTTP",
        "tokens again",
        "of all",
        "s",
    ]
    print(table(header, rows))
    print(*("", *(complaints or ["nothing went wrong"])), sep="\n")
    raise SystemExit(bool(complaints))


def _row(name: str, done: Aftermath) -> list[str]:
    stats = done.scheduler
    over_http = sum(count for reason, count in stats.placements.items() if reason.startswith("http"))
    read = stats.total.usage.input_tokens
    return [
        name,
        str(done.completed),
        f"{stats.turns:,}",
        f"{len(done.executed):,}",
        f"{sum(done.pool.losses.values()):,}",
        f"{sum(stats.retries.values()):,}",
        f"{over_http:,}",
        f"{stats.tokens_replayed:,}",
        f"{stats.tokens_replayed / read:.1%}" if read else "",
        f"{done.seconds:.0f}",
    ]


if __name__ == "__main__":
    main()

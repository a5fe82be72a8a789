"""Connections that come of age under many conversations: `python -m bench.lifetimes --help`.

The server closes each connection after a few seconds instead of an hour; everything else is as it always is, on real
loopback sockets. Nothing may be recovered: any turn that is cut or refused counts as failed. Each turn's context is
compared with what the server saw. A turn *follows a migration* when it travels on another connection than the turn
before it, for whatever reason; it should be no slower than any other.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter

import trio
from attrs import define, field, frozen

from bench.checked import WrongContext, asking, outputs, take
from bench.compare import Target, percentile, progress, table
from bench.machine import describe
from bench.server import emulator
from pool.errors import PoolError
from pool.settings import Endpoint, Lanes, PoolSettings
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.settings import SchedulerSettings

UNFORGIVING = SchedulerSettings(attempts=1, ambiguous="fail", interrupted="fail", transport="websocket")
# Reading a transcript anew takes longer than the rest of a turn
LATENCY = "base=0.03,input=0.0001,output=0.002"
WORDS = 400  # said at first: two hundred tokens or so
ANSWER = 20  # words of a tool's output
SPARE = 8  # single-lane connections
NO_WORSE = 1.1  # p99 after a migration over p99 of all turns


@frozen(kw_only=True)
class Load:
    """Conversations, each one run after the other. Times in seconds."""

    conversations: int
    seconds: float  # after this, no turn begins
    turns: int = 20  # of a run
    tool: float = 1.0  # a tool takes, on average
    store: bool = False
    seed: int = 1


@frozen
class Seen:
    """One turn that succeeded."""

    reason: str
    first: bool  # of its run
    moved: bool  # on another connection than the one before
    seconds: float


@define
class Lived:
    """What came of it."""

    turns: list[Seen] = field(factory=list)
    failed: Counter[str] = field(factory=Counter)
    wrong: int = 0

    def p99(self, *, moved: bool = False) -> float:
        """Return the 99th percentile in seconds: of the turns after a migration, or of all."""
        return percentile(sorted(one.seconds for one in self.turns if one.moved or not moved), 0.99)

    @property
    def moved(self) -> int:
        """Turns after a migration."""
        return sum(one.moved for one in self.turns)

    @property
    def replayed(self) -> Counter[str]:
        """Later turns of a run that were replays, by reason."""
        return Counter(one.reason for one in self.turns if not one.first and "replay" in one.reason)


async def live(scheduler: Scheduler, load: Load) -> Lived:
    """Let all conversations speak until the time is over."""
    lived, until = Lived(), trio.current_time() + load.seconds
    async with trio.open_nursery() as nursery:
        for number in range(load.conversations):
            nursery.start_soon(_one, scheduler, load, number, until, lived)
    return lived


async def _one(scheduler: Scheduler, load: Load, number: int, until: float, lived: Lived) -> None:
    rng = random.Random(f"{load.seed} {number}")
    request = asking(f"calls={load.turns - 1} output_tokens=10 deltas=2")
    await trio.sleep(rng.uniform(0, 2 * load.tool))
    while trio.current_time() < until:
        conversation = scheduler.conversation(name=f"conversation {number}", store=load.store)
        try:
            turn = await take(conversation, "word " * WORDS, request)
            before = turn.placement
            lived.turns.append(Seen(before.reason, True, False, turn.seconds))
            while turn.calls and trio.current_time() < until:
                await trio.sleep(rng.expovariate(1 / load.tool))
                turn = await take(conversation, outputs(turn, "seen " * ANSWER), request)
                now, moved = turn.placement, turn.placement.connection != before.connection
                lived.turns.append(Seen(now.reason, False, moved, turn.seconds))
                before = now
        except WrongContext:
            lived.wrong += 1
        except PoolError as error:
            lived.failed[type(error).__name__] += 1
        conversation.close()


async def _measure(url: str, load: Load, lanes: Lanes, max_age: float) -> tuple[list[str], list[Target]]:
    # A lane for each conversation, and some for those on which an overtaken move is still being read
    sockets = load.conversations + SPARE if lanes.count == 1 else -(-load.conversations // lanes.in_flight)
    settings = PoolSettings(
        max_connections=sockets, min_idle=0, dial_rate=500, dial_burst=sockets, rotation_overlap=8
    )
    endpoint = Endpoint.emulator(url, lanes=lanes).with_(max_age=max_age)
    async with open_scheduler(
        endpoint, pool_settings=settings, settings=UNFORGIVING, rng=random.Random(load.seed)
    ) as scheduler:
        lived = await live(scheduler, load)
        stats, pooled = scheduler.stats(), scheduler.pool.stats()
    name = f"{'single' if lanes.count == 1 else 'multi'}, {'' if load.store else 'not '}stored"
    replayed = sum(lived.replayed.values()) / len(lived.turns)
    row = [
        name,
        f"{len(lived.turns):,}",
        f"{pooled.rotated:,}",
        f"{lived.moved:,}",
        f"{stats.moves['made']:,}",
        f"{replayed:.2%}",
        f"{lived.p99() * 1e3:.0f}",
        f"{lived.p99(moved=True) * 1e3:.0f}",
        str(lived.failed.total()),
        str(sum(pooled.losses.values())),
        str(lived.wrong),
    ]
    return row, [
        Target(f"{name}: turns that failed, were cut or wrong", lived.failed.total() + lived.wrong, 0),
        Target(f"{name}: p99 after a migration / of all", lived.p99(moved=True) / lived.p99(), NO_WORSE),
    ]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.lifetimes")
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument(
        "--max-age", type=float, default=20.0, help="of a connection, in seconds (default 20)"
    )
    parser.add_argument("--lifetimes", type=float, default=3.0, help="how many (default 3)")
    parser.add_argument("--tool", type=float, default=1.5, help="mean seconds of a tool (default 1.5)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(describe())
    print(
        f"\n{arguments.conversations} conversations, connections closed after {arguments.max_age:g} s, ",
        end="",
    )
    print(f"{arguments.lifetimes:g} lifetimes, tools {arguments.tool:g} s, {LATENCY}\n")
    rows, targets = list[list[str]](), list[Target]()
    for lanes in (Lanes.single(), Lanes.multi()):
        for store in (False, True):
            progress(f"{lanes}, store={store} ...")
            load = Load(
                conversations=arguments.conversations,
                seconds=arguments.lifetimes * arguments.max_age,
                tool=arguments.tool,
                store=store,
                seed=arguments.seed,
            )
            options = ("--max-age", str(arguments.max_age), "--latency", LATENCY)
            with emulator(*options, "--lanes", "multi" if lanes.named else "single") as url:
                row, told = trio.run(_measure, url, load, lanes, arguments.max_age)
            rows.append(row)
            targets += told
    progress("")
    header = ["lanes", "turns", "rotated", "moved turns", "moves", "replays"]
    header += ["p99 ms", "p99 ms moved", "failed", "lost", "wrong"]
    print(table(header, rows))
    print(*("", *targets), sep="\n")


if __name__ == "__main__":
    main()

"""Everything that turns can do, at once, cancelled at random while the pool is disturbed: what a seed says.

`python -m tests.support.disorder 0 300` plays so many seeds and says what came of them.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
from collections import Counter
from functools import partial

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pool.emulator import EmulatorSettings, Latency
from pool.settings import Lanes, PoolSettings
from scheduler.admission.tenant import Budget, Tenant
from scheduler.settings import SchedulerSettings
from tests.support.acting import FRAME, Actor, Play
from tests.support.http_world import both_ways
from tests.support.order import repeat

FAULTS = (
    "drop,how=close,at=0,p={0}; drop,how=abrupt,at=3,p={0}; drop,how=midframe,at=4,p={0}; stall,at=2,p={0};"
    "limit_create,p={0}; limit_mid,at=3,p={0}; rate_limit,p={0},retry_after=0.7; error,status=503,p={0};"
    "failed,at=3,p={0}; forget,p={0}; refuse,status=503,p={0}; drip,seconds=0.3,at=2,p={0}; empty,p=0.1;"
    "limit_idle,after=9,p={0}"
)
LANES = (
    Lanes.single(),
    Lanes.multi(in_flight=2, named=4),
    Lanes.multi(in_flight=3, named=3),
    Lanes.multi(in_flight=2, named=8),
)
MAX_AGE = 60.0
ACTORS, ACTS = 10, 10


async def play(seed: int) -> Counter[str]:
    """Play what a seed says, to the end; return what came of it.

    Raises:
        AssertionError, WrongContext, trio.TooSlowError: something was left behind, said wrongly or lost.
    """
    repeat(seed)
    rng = random.Random(seed)
    lanes, often = rng.choice(LANES), rng.choice((0.0, 0.01, 0.04))
    server = EmulatorSettings(
        lanes=lanes,
        latency=Latency(base=rng.choice((0.05, 0.3)), output=0.02, input=1e-4),
        faults=FAULTS.format(often) if often else "",
        seed=seed,
        max_age=MAX_AGE,
        frame_cap=FRAME,
    )
    pool = PoolSettings(
        max_connections=rng.randrange(1, 4),
        min_idle=rng.randrange(2),
        stall_timeout=6,
        keepalive_interval=4,
        keepalive_timeout=4,
        idle_timeout=rng.choice((5.0, 600.0)),
        abandon_timeout=rng.choice((0.5, 20.0)),
    )
    settings = SchedulerSettings(
        max_in_flight=rng.choice((None, 1, 3)),
        max_runs=rng.choice((None, 2)),
        tenants=[Tenant(name="a", weight=3), Tenant(name="b", max_in_flight=1, max_runs=1)],
        budgets={"emulated": Budget(requests_per_minute=200)} if rng.random() < 0.2 else {},
        attempts=rng.choice((2, 6)),
        ambiguous=rng.choice(("resend", "fail")),
        interrupted=rng.choice(("restart", "fail")),
    )
    world = partial(both_ways, server=server, lanes=lanes, max_age=MAX_AGE, frame_cap=FRAME)
    async with world(pool=pool, settings=settings) as w:
        it = Play(rng, w, harsh=rng.choice((0.1, 0.4)))
        actors = [
            Actor(
                it,
                w.scheduler.conversation(
                    store=rng.random() < 0.3,
                    tenant=rng.choice(("a", "b", "c")),
                    deadline=rng.choice((*[None] * 6, 40.0)),
                    priority=rng.choice((0, 1)),
                ),
            )
            for _ in range(ACTORS)
        ]
        ends = rng.choice((math.inf, math.inf, rng.uniform(0, 60)))
        with trio.fail_after(4 * 3600), trio.move_on_after(ends):
            async with trio.open_nursery() as disturbing:
                disturbing.start_soon(it.disturb)
                async with trio.open_nursery() as nursery:
                    for actor in actors:
                        nursery.start_soon(actor.act, ACTS)
                disturbing.cancel_scope.cancel()
        await it.quiet()
        it.harsh = 0.0
        for actor in actors:  # whatever has happened to it, a conversation can go on
            with trio.fail_after(1000):
                await it.attempt(actor.turn)
        await it.quiet()
        for conversation in it.everybody:
            conversation.close()
        await wait_all_tasks_blocked()
        assert w.scheduler.pool.stats().waiting == 0
        return it.done


def main() -> None:
    """Play seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.support.disorder")
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    total = Counter[str]()
    for seed in range(arguments.first, arguments.last):
        print(f"\rseed {seed}", end="", flush=True)
        total += trio.run(play, seed, clock=MockClock(autojump_threshold=0))
    print(f"\r{arguments.last - arguments.first} seeds, and nothing was left behind")
    for what, count in total.most_common():
        print(f"{count:8} {what}")


if __name__ == "__main__":
    main()

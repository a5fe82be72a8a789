"""Forty runs on real sockets while everything breaks at random: all complete, nothing is wrong, nothing twice."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
import trio

from pool.emulator import EmulatorSettings, Latency, serve_emulator
from pool.settings import Endpoint, Lanes, PoolSettings
from pool.wire.events import ServerEvent
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.settings import SchedulerSettings
from tests.support.world import asking, outputs, take

RUNS, TURNS = 40, 10
# A lost connection takes all its lanes along, so where lanes are shared connections are lost less often.
DEADLY = (
    "drop,how=close,at=0,p={0}",
    "drop,how=close,at=5,code=1001,p={1}",
    "drop,how=abrupt,at=0,p={0}",
    "drop,how=abrupt,at=6,p={1}",
    "drop,how=midframe,at=3,p={1}",
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
SEEDS = [int(os.environ["WARMLINE_STORM_SEED"])] if "WARMLINE_STORM_SEED" in os.environ else [1, None]


@pytest.mark.parametrize(
    "lanes", [Lanes.single(), Lanes.multi(in_flight=8, named=12)], ids=["single", "multi"]
)
@pytest.mark.parametrize("seed", SEEDS)
async def test_storm(seed: int | None, lanes: Lanes) -> None:
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"WARMLINE_STORM_SEED={seed}")
    single = lanes.count == 1
    often, oftener = (0.01, 0.02) if single else (0.004, 0.008)
    faults = ";".join((*DEADLY, *HARMLESS)).format(often, oftener)
    server = EmulatorSettings(
        faults=faults, seed=seed, lanes=lanes, latency=Latency(base=0.002), max_age=20.0, close_timeout=0.5
    )
    pool = PoolSettings(max_connections=12 if single else 4, dial_rate=200, close_grace=0.5, dial_attempts=8)
    settings = SchedulerSettings(attempts=25, backoff=0.02, backoff_max=0.2)
    executed: Counter[str] = Counter()
    async with serve_emulator(server) as running:
        endpoint = Endpoint.emulator(running.url, lanes=lanes).with_(max_age=20.0)
        rng = random.Random(seed)
        with trio.fail_after(60):
            async with (
                open_scheduler(endpoint, pool_settings=pool, settings=settings, rng=rng) as scheduler,
                trio.open_nursery() as nursery,
            ):
                for number in range(RUNS):
                    nursery.start_soon(_run, scheduler, number, executed)
        stats, pooled = scheduler.stats(), scheduler.pool.stats()
        assert running.emulator.stats.crashes == 0
    print(stats.placements, stats.retries, f"opened={pooled.opened} lost={pooled.lost} {executed.total()}")
    assert stats.turns == RUNS * TURNS
    assert (pooled.leased_lanes, pooled.waiting) == (0, 0)
    assert len(stats.retries) > 4
    assert executed.total() == len(executed) == RUNS * (TURNS - 1) * 2


async def _run(scheduler: Scheduler, number: int, executed: Counter[str]) -> None:
    """One agent: nine turns of two tools, then the answer; `take` checks each digest."""
    conversation = scheduler.conversation(store=number % 3 == 0)
    request = asking(f"calls={TURNS - 1} parallel=2 reasoning={number % 2}")
    on_event = _listen if number % 2 else None
    turn = await take(conversation, f"run {number}", request, on_event=on_event)
    while turn.calls:
        for call in turn.calls:
            executed[f"{number}/{call.call_id}"] += 1
        turn = await take(conversation, outputs(turn), request, on_event=on_event)


async def _listen(event: ServerEvent) -> None:
    await trio.lowlevel.checkpoint()

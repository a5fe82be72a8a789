"""Connections that live three seconds, on real sockets: nobody who speaks over them notices."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio

from bench.lifetimes import LATENCY, UNFORGIVING, Load, live
from pool.emulator import EmulatorSettings, serve_emulator
from pool.settings import Endpoint, Lanes, PoolSettings
from scheduler.scheduler import open_scheduler

MAX_AGE = 3.0


@pytest.mark.parametrize(
    ("lanes", "store"),
    [(Lanes.single(), False), (Lanes.multi(in_flight=4, named=8), True)],
    ids=["single", "multi"],
)
async def test_no_turn_is_cut_by_the_cap(lanes: Lanes, store: bool) -> None:
    server = EmulatorSettings(lanes=lanes, latency=LATENCY, max_age=MAX_AGE)
    pool = PoolSettings(max_connections=16 // lanes.in_flight, min_idle=0, dial_rate=500, close_grace=0.5)
    async with serve_emulator(server) as running:
        endpoint = Endpoint.emulator(running.url, lanes=lanes).with_(max_age=MAX_AGE)
        with trio.fail_after(60):
            async with open_scheduler(
                endpoint, pool_settings=pool, settings=UNFORGIVING, rng=random.Random(1)
            ) as scheduler:
                lived = await live(scheduler, Load(conversations=16, seconds=5.0, tool=0.2, store=store))
        stats, pooled = scheduler.stats(), scheduler.pool.stats()
        assert (lived.failed, lived.wrong, stats.retries) == (Counter(), 0, {})
        assert (running.emulator.stats.limit_closes, pooled.losses) == (0, {})
    assert pooled.rotated >= pool.max_connections
    assert lived.moved > 0

"""A day and a night on a mock clock: connections come of age by the hour, and no turn notices."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from bench.lifetimes import UNFORGIVING, Load, live
from pool.emulator import EmulatorSettings, Latency
from pool.settings import Lanes, PoolSettings
from tests.support.world import world

DAY = 24 * 3600.0
LATENCY = Latency(base=0.5, input=0.005, output=0.05)  # the first 400 words take as long as four other turns


@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
@pytest.mark.parametrize(
    "lanes", [Lanes.single(), Lanes.multi(in_flight=2, named=4)], ids=["single", "multi"]
)
async def test_a_day_and_a_night(autojump_clock: MockClock, lanes: Lanes, store: bool) -> None:
    pool = PoolSettings(
        max_connections=4 // lanes.in_flight, idle_timeout=DAY, keepalive_interval=600.0, min_idle=0
    )
    server = EmulatorSettings(lanes=lanes, latency=LATENCY)
    async with world(server=server, pool=pool, settings=UNFORGIVING) as w:
        lived = await live(w.scheduler, Load(conversations=4, seconds=DAY, tool=600.0, store=store))
        stats, pooled = w.scheduler.stats(), w.pool.stats()
        assert trio.current_time() > DAY
        assert (lived.failed, lived.wrong, stats.retries) == (Counter(), 0, {})
        assert (w.emulator.stats.limit_closes, pooled.losses) == (0, {}), "none was cut by the cap"
        assert pooled.rotated > 24
        assert len(lived.turns) > 500
        assert lived.moved > 40
        assert lived.p99(moved=True) <= lived.p99()
        if not store:
            assert stats.moves["made"] > 40
            assert lived.replayed.total() < 0.01 * len(lived.turns)
        w.assert_quiet()

"""Forty runs on real sockets while everything breaks at random: all complete, nothing is wrong, nothing twice."""

from __future__ import annotations

import os
import random

import pytest
import trio

from bench.storm import Weather, storm
from pool.settings import Lanes

SEEDS = [int(os.environ["WARMLINE_STORM_SEED"])] if "WARMLINE_STORM_SEED" in os.environ else [1, None]


@pytest.mark.parametrize(
    "lanes", [Lanes.single(), Lanes.multi(in_flight=8, named=12)], ids=["single", "multi"]
)
@pytest.mark.parametrize("seed", SEEDS)
async def test_storm(seed: int | None, lanes: Lanes) -> None:
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"WARMLINE_STORM_SEED={seed}")
    with trio.fail_after(60):
        done = await storm(Weather(runs=40, turns=8, lanes=lanes, seed=seed, at_once=40))
    stats = done.scheduler
    print(stats.placements, stats.retries, f"opened={done.pool.opened} lost={done.pool.lost}")
    assert done.complaints == []
    assert len(stats.retries) > 4
    assert stats.placements["http:oversize"] >= 5
    assert stats.tokens_replayed > 0

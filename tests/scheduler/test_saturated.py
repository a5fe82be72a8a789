"""Three conversations for each lane: nobody's lane may idle while others wait, whatever its owner has to lose."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from bench.placement import Load, measure
from pool.emulator import EmulatorSettings, Latency
from pool.placement import Ladder
from pool.settings import Lanes, PoolSettings
from scheduler.policy import ByCost
from scheduler.settings import SchedulerSettings
from tests.support.world import asking, outputs, take, world

LOAD = Load(lanes=3, per_lane=3.0, gap=2.0, tokens=20_000, turns=8, runs_per_slot=2, seed=1)


async def test_waiting_for_admission_is_time_that_a_lane_idles(autojump_clock: MockClock) -> None:
    server = EmulatorSettings(latency=Latency(base=1.0), lanes=Lanes.single())
    pool, settings = PoolSettings(max_connections=2, min_idle=0), SchedulerSettings(max_in_flight=1)
    async with world(server=server, pool=pool, settings=settings) as w:
        ada, bob = w.scheduler.conversation(), w.scheduler.conversation()
        turn = await take(ada, "look", asking("calls=1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, bob, "long", asking("calls=0 output_tokens=1 deltas=1"))
            await trio.sleep(0.25)  # her tool
            await take(ada, outputs(turn))
        # A quarter of a second for the tool, and the rest of bob's second in line.
        assert abs(ada._at.hold.gap - 1.0) < 0.05
        tool_time = w.scheduler.stats().tool_time
        assert abs(tool_time.max - 0.25) < 0.01, "what the tool took is counted for itself"


def test_a_saturated_pool_loses_nothing_by_expected_cost() -> None:
    """Against taking the lane that was used least recently, at once."""
    cost = trio.run(measure, LOAD, ByCost(), clock=MockClock(autojump_threshold=0))
    recent = trio.run(measure, LOAD, Ladder(), clock=MockClock(autojump_threshold=0))
    assert cost.mean < 1.03 * recent.mean
    assert cost.replayed_tokens < recent.replayed_tokens

"""What the scheduler's snapshots say of the turns that were taken."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pool.emulator import EmulatorSettings
from pool.settings import Lanes, PoolSettings
from pool.stats.recorder import LABELS, OTHERS
from scheduler.settings import SchedulerSettings
from scheduler.stats import SchedulerStats
from tests.support.world import asking, outputs, take, tool_loop, world

PACED = EmulatorSettings(latency="base=1,input=0,output=0.1")


async def test_every_turn_is_timed_from_its_call(autojump_clock: trio.testing.MockClock) -> None:
    one_lane = PoolSettings(min_idle=1, max_connections=1)
    async with world(server=PACED, lanes=Lanes.single(), pool=one_lane) as w:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(
                    take, w.scheduler.conversation(), "Hello", asking("calls=0 output_tokens=10")
                )
        stats = w.scheduler.stats()
        assert stats.turns == 2
        # The second waited for the lane of the first, and all it saw came so much later.
        assert stats.wait.min == pytest.approx(0.0, abs=1e-5)
        assert stats.wait.max == pytest.approx(stats.turn.min, rel=2e-3)
        assert stats.first_event.max == pytest.approx(stats.wait.max + stats.first_event.min, rel=2e-3)
        assert stats.turn.max == pytest.approx(2 * stats.turn.min, rel=2e-3)
        assert stats.first_event.max <= stats.first_token.max < stats.turn.max
        # The pool times each from its send, so that the two can be told apart.
        assert stats.pool.turn.max == pytest.approx(stats.pool.turn.min, rel=2e-3)
        assert stats.pool.wait.max == pytest.approx(stats.wait.max, rel=2e-3)
        assert stats.admission.waits["default"].count == 2


async def test_the_time_of_tools_is_the_gap_after_a_turn_that_asked_for_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as w:
        conversation = w.scheduler.conversation()
        turn = await take(conversation, "Look", asking("calls=1"), ending=False)
        assert turn.calls
        await trio.sleep(7)
        await take(conversation, outputs(turn), asking("calls=1"))
        await trio.sleep(100)  # the run is over: that is nobody's tool
        await take(conversation, "And now?", asking("calls=0"))
        gaps = w.scheduler.stats().tool_time
        assert gaps.count == 1
        assert gaps.max == pytest.approx(7, rel=1e-3)


async def test_models_are_told_apart_up_to_a_number(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as w:
        for number in range(LABELS + 3):
            request = asking("calls=0")
            request = type(request)(model=f"model {number}", options=request.options)
            await w.scheduler.conversation().turn("Hello", request)
        stats = w.scheduler.stats()
        assert len(stats.models) == LABELS + 1
        assert stats.models["model 0"].turns == 1
        assert stats.models[OTHERS].turns == 3
        assert stats.turns == stats.turn.count == LABELS + 3


async def test_an_interval_is_the_difference_of_two_snapshots(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as w:
        await tool_loop(w.scheduler.conversation(), asking("calls=3"), "Look")
        before = w.scheduler.stats()
        await trio.sleep(60)
        await tool_loop(w.scheduler.conversation(), asking("calls=5"), "Look")
        after = w.scheduler.stats()
        interval = after - before
        assert (before.turns, interval.turns, after.turns) == (4, 6, 10)
        assert interval.turn.count == interval.pool.turn.count == 6
        assert interval.pool.seconds >= 60
        assert interval.pool.open == after.pool.open == 1
        assert before + interval == after.__class__.from_json((before + interval).to_json())
        assert (before + interval).total == after.total
        with pytest.raises(ValueError, match="no earlier"):
            before - after


async def test_a_snapshot_survives_the_trip_through_json(autojump_clock: trio.testing.MockClock) -> None:
    async with world(settings=SchedulerSettings(), lanes=Lanes.multi()) as w:
        await tool_loop(w.scheduler.conversation(tenant="acme"), asking("calls=2"), "Look")
        async with w.pool.lease(holder="somebody"):
            stats = w.scheduler.stats()
        assert stats.pool.leases
        assert SchedulerStats.from_json(stats.to_json()) == stats

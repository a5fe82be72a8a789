"""The probe of the event loop: late wake-ups are counted, and those that they took the place of."""

from __future__ import annotations

import time

import pytest
import trio
import trio.testing

from pool.stats.lag import INTERVAL, MOST_MISSED, PATIENCE, LagProbe
from pool.stats.recorder import Histogram
from tests.support.world import asking, take, world


@pytest.mark.parametrize("late", [0.0, 0.1, 1.0, 10.0])
def test_a_standstill_is_as_many_samples_as_it_lasted(late: float) -> None:
    lag = Histogram()
    LagProbe(lag, lambda: True).record(late)
    found = lag.snapshot()
    assert found.count == 1 + int(late / INTERVAL)
    assert found.max == pytest.approx(late, rel=1e-3, abs=2e-6)


def test_a_night_of_standstill_is_bounded() -> None:
    lag = Histogram()
    LagProbe(lag, lambda: True).record(8 * 3600.0)
    assert lag.snapshot().count == 1 + MOST_MISSED


async def test_it_parks_when_there_is_nothing_to_do(autojump_clock: trio.testing.MockClock) -> None:
    lag, busy = Histogram(), True
    probe = LagProbe(lag, lambda: busy)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe.run)
        await trio.sleep(10 * INTERVAL + 0.01)
        assert lag.snapshot().count == 10
        busy = False
        await trio.sleep(3600)
        assert lag.snapshot().count == 10 + PATIENCE
        probe.stir()
        await trio.sleep(3600)
        assert lag.snapshot().count == 10 + 2 * PATIENCE
        nursery.cancel_scope.cancel()
    assert lag.snapshot().max < 1e-5  # a mock clock is never late


async def test_a_pool_probes_while_it_works(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as w:
        await trio.sleep(100)
        assert w.pool.stats().loop_lag.count == 0
        await take(w.scheduler.conversation(), "Hello", asking("calls=0"))
        await trio.sleep(100)
        assert 0 < w.pool.stats().loop_lag.count <= PATIENCE + 20


async def test_a_loop_that_is_held_up_is_seen() -> None:
    lag = Histogram()
    probe = LagProbe(lag, lambda: True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(probe.run)
        await trio.sleep(0.01)
        while not lag.counts:
            time.sleep(INTERVAL + 0.05)  # noqa: ASYNC251  # that is the point
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert lag.snapshot().max > 0.04

"""Pauses that end together."""

from __future__ import annotations

import trio
import trio.testing

from pool.pauses import Pauses


async def test_whoever_comes_meanwhile_is_woken_with_the_first(autojump_clock: trio.abc.Clock) -> None:
    pauses = Pauses()
    woken: list[float] = []

    async def pause(after: float) -> None:
        await trio.sleep(after)
        await pauses.pause(1)
        woken.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for after in (0, 0.25, 0.75, 1.5):
            nursery.start_soon(pause, after)
    assert woken == [1, 1, 1, 2.5]


async def test_when_the_sleeper_is_cancelled_nobody_sleeps_on(autojump_clock: trio.abc.Clock) -> None:
    pauses = Pauses()
    async with trio.open_nursery() as others, trio.open_nursery() as first:
        first.start_soon(pauses.pause, 10)
        await trio.testing.wait_all_tasks_blocked()
        others.start_soon(pauses.pause, 10)
        others.start_soon(pauses.pause, 10)
        await trio.testing.wait_all_tasks_blocked()
        first.cancel_scope.cancel()
    assert trio.current_time() == 0
    await pauses.pause(3)
    assert trio.current_time() == 3


async def test_one_who_is_cancelled_leaves_the_rest_alone(autojump_clock: trio.abc.Clock) -> None:
    pauses = Pauses()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pauses.pause, 2)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1) as impatient:
            await pauses.pause(2)
        assert impatient.cancelled_caught
    assert trio.current_time() == 2

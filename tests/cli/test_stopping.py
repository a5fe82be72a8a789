"""What Ctrl-C does: stop, cancel, go."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest
import trio

from scheduler.commands.stopping import Stopper
from scheduler.fleet.fleet import Fleet, Phase
from scheduler.fleet.tasks import Task
from scheduler.turns import Turn
from tests.support.fake_conversation import Given, a_turn
from tests.support.fleets import a_fleet


async def ten_seconds(name: str, given: Given) -> Turn:
    await trio.sleep(10)
    return a_turn("done")


async def signals(*times: float) -> AsyncIterator[int]:
    for at in times:
        await trio.sleep(at - trio.current_time())
        yield signal.SIGINT
    await trio.sleep_forever()


async def stopped(*times: float, grace: float = 30) -> tuple[Fleet, Stopper, list[str], list[int]]:
    """Run a fleet of ten-second tasks while Ctrl-C is pressed at these times."""
    fleet, _ = a_fleet(ten_seconds, concurrency=2)
    said: list[str] = []
    gone: list[int] = []
    async with trio.open_nursery() as nursery:
        stopper = Stopper(nursery.cancel_scope, grace, said.append, gone.append)
        nursery.start_soon(stopper.watch, signals(*times))
        stopper.fleet = fleet
        await fleet.run([Task(id=str(number), input="x") for number in range(6)])
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    return fleet, stopper, said, gone


async def test_once_lets_the_running_finish(autojump_clock: trio.testing.MockClock) -> None:
    fleet, stopper, said, gone = await stopped(5)
    assert (fleet.counts().completed, fleet.counts().cancelled) == (2, 0)
    assert said == ["stopping: 2 runs may finish within 30 s; Ctrl-C again cancels them now"]
    assert (stopper.signal, stopper.note, gone) == (signal.SIGINT, "stopping; Ctrl-C again cancels", [])


async def test_grace_comes_to_an_end(autojump_clock: trio.testing.MockClock) -> None:
    fleet, stopper, said, _ = await stopped(15, grace=2)
    assert (fleet.counts().completed, fleet.counts().cancelled) == (2, 2)
    assert said[1:] == ["cancelling what runs still, after 2 s; results of finished runs are kept"]
    assert stopper.note == "cancelling"


async def test_twice_cancels(autojump_clock: trio.testing.MockClock) -> None:
    fleet, _, said, gone = await stopped(15, 16)
    assert (fleet.counts().completed, fleet.counts().cancelled) == (2, 2)
    assert said[1:] == ["cancelling now; results of finished runs are kept"]
    assert gone == []


async def test_a_third_time_ends_the_process(autojump_clock: trio.testing.MockClock) -> None:
    assert (await stopped(15, 16, 17))[3] == [signal.SIGINT]


async def test_after_the_end_only_the_third_counts(autojump_clock: trio.testing.MockClock) -> None:
    fleet, _, said, gone = await stopped(50, 51)
    assert (fleet.counts().completed, fleet.phase, said, gone) == (6, Phase.DONE, [], [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_before_there_is_a_fleet_it_ends_everything(number: int) -> None:
    async def one() -> AsyncIterator[int]:
        yield number
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        stopper = Stopper(scope, 10, lambda line: None)
        await stopper.watch(one())
    assert scope.cancelled_caught
    assert stopper.signal == number

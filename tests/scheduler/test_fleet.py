"""The fleet: bounded, isolated, and ended in every way there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from pool.errors import DialFailed, PoolClosed, ResponseFailed, SettingsError
from scheduler.agent import Agent
from scheduler.errors import FleetHalted, TaskError
from scheduler.fleet.fleet import Phase
from scheduler.fleet.results import TaskResult
from scheduler.fleet.tasks import Task
from scheduler.fleet.verdict import endpoint_is_at_fault, principal
from scheduler.tools import tool
from scheduler.turns import Turn
from tests.support.fake_conversation import Given, a_turn, call
from tests.support.fleets import a_fleet


async def second(name: str, given: Given) -> Turn:
    await trio.sleep(1)
    return a_turn(f"done {name}")


def tasks(count: int) -> list[Task]:
    return [Task(id=f"t{number}", input="x") for number in range(count)]


async def test_every_task_has_a_result(autojump_clock: trio.testing.MockClock) -> None:
    fleet, scheduler = a_fleet(second, concurrency=3)
    results: list[TaskResult] = []
    counts = await fleet.run(tasks(10), on_result=results.append)
    assert sorted(result.id for result in results) == sorted(task.id for task in tasks(10))
    assert {result.outcome for result in results} == {"completed"}
    assert results[0].output == f"done {results[0].id}"
    assert (results[0].turns, results[0].first_event, results[0].turn_seconds) == (1, (0.25,), (1.0,))
    assert (counts.completed, counts.ended, counts.running, counts.turns, counts.deltas) == (
        10,
        10,
        0,
        10,
        10,
    )
    assert counts.usage.total_tokens == 100
    assert fleet.phase is Phase.DONE
    assert trio.current_time() == pytest.approx(4)  # ten seconds of work by three
    assert all(conversation.closed for conversation in scheduler.made)


async def test_a_million_tasks_are_read_as_they_are_needed(autojump_clock: trio.testing.MockClock) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"task {read}"

    fleet, _ = a_fleet(second, concurrency=5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.run, endless())
        await trio.sleep(2.5)
        assert read == 15
        assert fleet.counts().running == 5
        fleet.cancel()


async def test_a_failed_run_is_nobody_elses_business(autojump_clock: trio.testing.MockClock) -> None:
    async def some_fail(name: str, given: Given) -> Turn:
        if name == "t1":
            raise ResponseFailed("too long", code="context_length_exceeded", status=400)
        return await second(name, given)

    fleet, scheduler = a_fleet(some_fail)
    results: list[TaskResult] = []
    counts = await fleet.run(tasks(6), on_result=results.append)
    assert (counts.completed, counts.failed) == (5, 1)
    failed = next(result for result in results if result.outcome == "failed")
    assert failed.id == "t1"
    assert failed.error is not None
    assert (failed.error.type, failed.error.code) == ("ResponseFailed", "context_length_exceeded")
    assert all(conversation.closed for conversation in scheduler.made)


async def test_metadata_of_a_task_is_said_on_each_turn(autojump_clock: trio.testing.MockClock) -> None:
    fleet, scheduler = a_fleet(second)
    await fleet.run([Task(id="a", input="x", metadata={"team": "blue"})])
    assert scheduler.made[0].requests[0].options["metadata"] == {"team": "blue"}


async def test_stopping_lets_the_running_ones_finish(autojump_clock: trio.testing.MockClock) -> None:
    fleet, _ = a_fleet(second, concurrency=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.run, tasks(10))
        await trio.sleep(1.5)
        fleet.stop()
        assert fleet.phase is Phase.STOPPING
    assert (fleet.counts().completed, fleet.counts().ended) == (6, 6)
    assert trio.current_time() == pytest.approx(2)


@tool(inline=True)
def look() -> str:
    """Look."""
    return "seen"


async def test_cancelling_tells_how_far_each_came(autojump_clock: trio.testing.MockClock) -> None:
    async def calls_first(name: str, given: Given) -> Turn:
        await trio.sleep(1)
        return a_turn("", call("look")) if given == "x" else await second(name, given)

    fleet, _ = a_fleet(calls_first, concurrency=3, agent=Agent(model="m", tools=[look]))
    results: list[TaskResult] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: fleet.run(tasks(10), on_result=results.append))
        await trio.sleep(1.5)
        assert (fleet.counts().turns, fleet.counts().tools_executed) == (3, 0)
        fleet.cancel()
        fleet.stop()  # too late to soften it
        assert fleet.phase is Phase.CANCELLING
    assert [result.outcome for result in results] == ["cancelled"] * 3
    assert (results[0].turns, results[0].tools_executed, results[0].error) == (1, 1, None)
    assert (fleet.counts().cancelled, fleet.counts().tools_executed, fleet.counts().tools_failed) == (3, 3, 0)


async def test_cancelled_from_outside_it_still_hands_over(autojump_clock: trio.testing.MockClock) -> None:
    fleet, scheduler = a_fleet(second, concurrency=2)
    results: list[TaskResult] = []
    with trio.move_on_after(1.5):
        await fleet.run(tasks(10), on_result=results.append)
    assert [result.outcome for result in results] == ["completed"] * 2 + ["cancelled"] * 2
    assert fleet.phase is Phase.DONE
    assert all(conversation.closed for conversation in scheduler.made)


@pytest.mark.parametrize("at", [quarter / 4 for quarter in range(1, 14)])
async def test_whenever_it_is_cancelled_nothing_is_counted_twice(
    autojump_clock: trio.testing.MockClock, at: float
) -> None:
    fleet, scheduler = a_fleet(second, concurrency=2)
    results: list[TaskResult] = []
    with trio.move_on_after(at):
        await fleet.run(tasks(6), on_result=results.append)
    assert len({result.id for result in results}) == len(results) == len(scheduler.made)
    assert fleet.counts().ended == len(results)
    assert fleet.counts().running == 0


async def test_an_endpoint_that_refuses_everybody_halts_it(autojump_clock: trio.testing.MockClock) -> None:
    refusal = DialFailed("401 Unauthorized", status=401, hopeless=True)

    async def refuses_later(name: str, given: Given) -> Turn:
        if name in ("t3", "t4"):
            await trio.sleep(0.5)
            raise refusal
        return await second(name, given)

    fleet, _ = a_fleet(refuses_later, concurrency=3)
    results: list[TaskResult] = []
    with pytest.raises(FleetHalted, match="401 Unauthorized") as caught:
        await fleet.run(tasks(20), on_result=results.append)
    assert caught.value.__cause__ is refusal
    # t3 and t4 have no result: it was not their fault; t5 ran beside them and may finish.
    assert sorted(result.id for result in results) == ["t0", "t1", "t2", "t5"]
    assert fleet.counts().failed == 0


async def test_what_a_run_did_before_it_met_the_fault_counts(autojump_clock: trio.testing.MockClock) -> None:
    async def calls_then_fails(name: str, given: Given) -> Turn:
        await trio.sleep(1)
        if given == "x":
            return a_turn("", call("look"))
        raise DialFailed("401 Unauthorized", status=401, hopeless=True)

    fleet, _ = a_fleet(calls_then_fails, concurrency=2, agent=Agent(model="m", tools=[look]))
    with pytest.raises(FleetHalted):
        await fleet.run(tasks(2))
    counts = fleet.counts()
    assert (counts.ended, counts.running) == (0, 0)
    assert (counts.turns, counts.tools_executed) == (2, 2)
    assert counts.usage.total_tokens > 0


async def _later(result: TaskResult) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("wrong", ["results.jsonl", [], _later], ids=["text", "list", "async"])
async def test_what_cannot_take_results_is_said_first(wrong: Any) -> None:
    fleet, scheduler = a_fleet(second, concurrency=2)
    with pytest.raises(SettingsError, match="on_result"):
        await fleet.run(tasks(2), on_result=wrong)
    assert scheduler.made == []


async def test_a_result_that_cannot_be_kept_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    def full(result: TaskResult) -> None:
        raise OSError("disk full")

    fleet, _ = a_fleet(second, concurrency=3)
    with pytest.raises(OSError, match="disk full"):  # and not inside an exception group
        await fleet.run(tasks(20), on_result=full)
    assert fleet.counts().ended == 0


async def test_a_malformed_task_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    fleet, _ = a_fleet(second, concurrency=2)
    with pytest.raises(TaskError, match="tasks:3"):
        await fleet.run(["a", "b", {"inptu": "c"}])
    assert fleet.counts().completed >= 1


async def test_an_iterator_of_the_callers_that_raises(autojump_clock: trio.testing.MockClock) -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise LookupError("gone")

    fleet, _ = a_fleet(second, concurrency=2)
    with pytest.raises(LookupError, match="gone"):
        await fleet.run(broken())


async def test_an_interrupt_is_not_a_failed_run(autojump_clock: trio.testing.MockClock) -> None:
    async def interrupted(name: str, given: Given) -> Turn:
        await trio.sleep(1)
        raise KeyboardInterrupt

    fleet, scheduler = a_fleet(interrupted)
    with pytest.RaisesGroup(KeyboardInterrupt) as caught:
        await fleet.run(tasks(1))
    assert isinstance(principal(caught.value), KeyboardInterrupt)
    assert all(conversation.closed for conversation in scheduler.made)


async def test_a_fleet_runs_once(autojump_clock: trio.testing.MockClock) -> None:
    fleet, _ = a_fleet(second)
    assert (await fleet.run([])).ended == 0
    with pytest.raises(RuntimeError, match="runs once"):
        await fleet.run([])


async def test_stopped_before_it_began(autojump_clock: trio.testing.MockClock) -> None:
    fleet, _ = a_fleet(second)
    fleet.stop()
    assert (await fleet.run(tasks(1))).ended == 0


@pytest.mark.parametrize("value", [0, -1, True, 1.5])
def test_concurrency_is_a_number(value: int) -> None:
    with pytest.raises(SettingsError, match="concurrency"):
        a_fleet(second, concurrency=value)


@pytest.mark.parametrize(
    ("error", "at_fault"),
    [
        (DialFailed("refused"), True),
        (PoolClosed("closed"), True),
        (SettingsError("key", None, "set it"), True),
        (ResponseFailed("no", status=401), True),
        (ResponseFailed("no", status=403), True),
        (ResponseFailed("no", status=429, code="insufficient_quota"), True),
        (ResponseFailed("no", status=429, kind="usage_limit_reached"), True),
        (ResponseFailed("no", status=404, code="model_not_found"), True),
        (ResponseFailed("no", status=400, code="context_length_exceeded"), False),
        (ResponseFailed("no", status=429, code="rate_limit_exceeded"), False),
        (ValueError("tool"), False),
    ],
)
def test_whose_fault_it_is(error: Exception, at_fault: bool) -> None:
    assert endpoint_is_at_fault(error) is at_fault


def test_what_counts_in_a_group() -> None:
    error, exit_ = ValueError("x"), SystemExit(3)
    assert principal(error) is error
    group = ExceptionGroup("g", [ExceptionGroup("h", [error]), TypeError("y")])
    assert principal(group) is error
    assert principal(BaseExceptionGroup("g", [error, BaseExceptionGroup("h", [exit_])])) is exit_


async def test_only_cancellations_in_a_group() -> None:
    kept: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep(1)
        except trio.Cancelled as cancelled:
            kept.append(cancelled)
            raise
    assert principal(BaseExceptionGroup("g", kept)) is kept[0]

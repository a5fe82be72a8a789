"""Admission over an emulator: tenants, storms of refusals, deadlines, agents within agents."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from pool.emulator import EmulatorSettings
from pool.settings import Lanes, PoolSettings
from scheduler.admission.tenant import Budget, Tenant
from scheduler.agent import Agent
from scheduler.errors import AdmissionQueueFull, DeadlineExceeded
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.results import TaskResult
from scheduler.scheduler import Scheduler
from scheduler.settings import SchedulerSettings
from scheduler.tools import tool
from tests.support.world import asking, take, world

SECOND = "base=1"  # of latency: a turn takes one second
ONE_CONNECTION = PoolSettings(max_connections=1)


def serving(faults: str = "", *, lanes: Lanes | None = None, latency: str = SECOND) -> EmulatorSettings:
    return EmulatorSettings(lanes=lanes or Lanes.single(), latency=latency, faults=faults)


def an_agent(calls: int = 0, *tools: object, name: str = "agent") -> Agent:
    return Agent(
        name=name,
        model="emulated",
        tools=tools,  # type: ignore[arg-type]  # a test's own
        options={"metadata": {"emulator": f"calls={calls}"}},
    )


async def test_one_who_floods_delays_the_other_by_two_turns_at_most(autojump_clock: MockClock) -> None:
    """The stated bound: p99 of the calm tenant's turns is the turn itself and two more, whatever the other does."""
    lanes = Lanes.multi(in_flight=4, named=4)
    agent, turns = an_agent(), list[float]()
    async with world(server=serving(lanes=lanes), pool=ONE_CONNECTION) as w:

        async def flood() -> None:
            await agent.run(w.scheduler, "flood", tenant="flood")

        async with trio.open_nursery() as nursery:
            for _ in range(300):
                nursery.start_soon(flood)
            await trio.sleep(2.5)
            for _ in range(40):
                result = await agent.run(w.scheduler, "calm", tenant="calm")
                turns.append(result.timings[0][1])
        turns.sort()
        assert turns[-1] <= 3.01
        assert sum(turns) / len(turns) <= 2.5
        waits = w.scheduler.stats().admission.waits
        assert waits["calm"].p99 <= 1.01 < 30 < waits["flood"].p99
        w.assert_quiet()


async def test_weights_hold_between_agents(autojump_clock: MockClock) -> None:
    lanes = Lanes.multi(in_flight=4, named=4)
    settings = SchedulerSettings(tenants=[Tenant(name="gold", weight=3)])
    used = {"gold": 0, "plain": 0}
    async with world(server=serving(lanes=lanes), pool=ONE_CONNECTION, settings=settings) as w:

        async def keep_asking(tenant: str) -> None:
            while True:
                conversation = w.scheduler.conversation(tenant=tenant)
                used[tenant] += (await take(conversation, "one")).usage.total_tokens
                conversation.close()

        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(keep_asking, "gold")
                nursery.start_soon(keep_asking, "plain")
            await trio.sleep(3000)  # some hundred turns: those that are not over do not count
            nursery.cancel_scope.cancel()
    assert used["gold"] / used["plain"] == pytest.approx(3, rel=0.05)


async def test_a_storm_of_refusals_shrinks_the_limit_and_it_recovers(autojump_clock: MockClock) -> None:
    settings = SchedulerSettings(attempts=30, backoff_max=2.0)
    lanes, seen = Lanes.multi(), list[float]()
    async with world(server=serving("rate_limit,times=60", lanes=lanes), settings=settings) as w:
        done = 0

        async def converse() -> None:
            nonlocal done
            conversation = w.scheduler.conversation()
            for _ in range(40):
                await take(conversation, "go on")
            done += 1

        async def watch() -> None:
            while done < 20:
                seen.append(w.scheduler.stats().admission.limits.get("emulated", float("inf")))
                await trio.sleep(0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for _ in range(20):
                nursery.start_soon(converse)
        assert seen[0] == float("inf")
        assert min(seen) <= 2
        lowest = seen.index(min(seen))
        assert max(seen[lowest:]) >= 8
        assert w.scheduler.stats().admission.cuts >= 3
        assert w.emulator.stats.responses == 800
        w.assert_quiet()


async def test_a_wait_asked_for_is_kept_by_every_conversation(autojump_clock: MockClock) -> None:
    async with world(server=serving("rate_limit,create=1,retry_after=20", lanes=Lanes.multi())) as w:
        begin, starts = trio.current_time(), list[float]()

        async def late(seconds: float) -> None:
            await trio.sleep(seconds)
            await take(w.scheduler.conversation(), "one")
            starts.append(trio.current_time() - begin)

        async with trio.open_nursery() as nursery:
            for seconds in (0, 2, 5, 10, 30):
                nursery.start_soon(late, seconds)
        assert min(starts) >= 20
        assert sum(w.scheduler.stats().retries.values()) == 1


async def test_agents_five_deep_on_one_single_lane(autojump_clock: MockClock) -> None:
    settings = SchedulerSettings(max_runs=1, max_in_flight=1, tenants=(Tenant(name="t", max_runs=1),))
    async with world(server=serving(), pool=ONE_CONNECTION, settings=settings) as w:

        def nest(depth: int) -> Agent:
            if not depth:
                return an_agent(name="deepest")
            inner = nest(depth - 1)

            @tool
            async def ask() -> str:
                """Ask the next one."""
                return (await inner.run(w.scheduler, "deeper")).text

            return an_agent(2, ask, name=f"depth {depth}")

        with trio.fail_after(3600):
            result = await nest(5).run(w.scheduler, "begin", tenant="t")
        assert result.tools_failed == 0
        assert result.tools_executed == 2
        stats = w.scheduler.stats()
        assert stats.turns == sum(3 * 2**level for level in range(5)) + 2**5
        assert list(stats.admission.waits) == ["t"]
        assert stats.admission.run_waits["t"].count == 1
        w.assert_quiet()


async def test_many_nested_runs_at_once_on_one_lane(autojump_clock: MockClock) -> None:
    settings = SchedulerSettings(max_runs=3)
    async with world(server=serving(), pool=ONE_CONNECTION, settings=settings) as w:
        inner = an_agent(name="inner")

        @tool
        async def ask() -> str:
            """Ask the inner one."""
            return (await inner.run(w.scheduler, "what")).text

        outer, ends = an_agent(3, ask), list[int]()

        async def run() -> None:
            ends.append((await outer.run(w.scheduler, "begin")).tools_failed)

        with trio.fail_after(3600):
            async with trio.open_nursery() as nursery:
                for _ in range(12):
                    nursery.start_soon(run)
        assert ends == [0] * 12
        w.assert_quiet()


async def test_a_run_past_its_deadline(autojump_clock: MockClock) -> None:
    async with world(server=serving()) as w:

        @tool
        async def wait() -> str:
            """Wait."""
            await trio.sleep(3)
            return "waited"

        begin = trio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await an_agent(10, wait).run(w.scheduler, "go", deadline=10)
        assert trio.current_time() - begin == pytest.approx(10)
        assert (caught.value.stage, caught.value.turns) == ("running", 3)
        await trio.sleep(30)  # what was abandoned drains
        w.assert_quiet()


async def test_a_conversations_deadline_covers_its_retries(autojump_clock: MockClock) -> None:
    async with world(server=serving("error,status=500")) as w:
        conversation, begin = w.scheduler.conversation(deadline=3), trio.current_time()
        with pytest.raises(DeadlineExceeded):
            await conversation.turn("one", asking())
        assert trio.current_time() - begin == pytest.approx(3)
        with pytest.raises(DeadlineExceeded) as caught:
            await conversation.fork().turn("one", asking())
        assert caught.value.stage == "refused"
        w.assert_quiet()


async def test_too_many_turns(autojump_clock: MockClock) -> None:
    settings = SchedulerSettings(max_queued=2)
    async with world(server=serving(), pool=ONE_CONNECTION, settings=settings) as w:
        refused = list[int]()

        async def turn() -> None:
            try:
                await take(w.scheduler.conversation(), "one")
            except AdmissionQueueFull as error:
                refused.append(error.limit)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(turn)
        assert refused == [2, 2]  # one on the lane, one at it, two in line
        w.assert_quiet()


async def test_a_fleets_tasks_say_who_they_are(autojump_clock: MockClock) -> None:
    settings = SchedulerSettings(budgets={"emulated": Budget(requests_per_minute=4)})
    results: dict[str, TaskResult] = {}
    tasks: list[dict[str, object]] = [
        {"id": "plain", "input": "a"},
        {"id": "mine", "input": "b", "tenant": "me", "priority": 1},
        {"id": "hasty", "input": "c", "tenant": "me", "deadline": 0.5},
    ]
    async with world(server=serving(lanes=Lanes.multi()), settings=settings) as w:
        counts = await run_fleet(w.scheduler, tasks, results)
        assert (counts["completed"], counts["failed"]) == (2, 1)
        error = results["hasty"].error
        assert error is not None
        assert error.type == "DeadlineExceeded"
        assert error.message.startswith("deadline of 0.5 s (tenant 'me'): running after 0.5 s")
        assert {name: kept.count for name, kept in w.scheduler.stats().admission.waits.items()} == {
            "default": 1,
            "me": 2,
        }


async def run_fleet(
    scheduler: Scheduler, tasks: list[dict[str, object]], results: dict[str, TaskResult]
) -> dict[str, int]:
    fleet = Fleet(an_agent(), scheduler)
    counts = await fleet.run(tasks, on_result=lambda result: results.update({result.id: result}))
    return {"completed": counts.completed, "failed": counts.failed}


async def test_cancelled_in_the_middle_of_everything(autojump_clock: MockClock) -> None:
    settings = SchedulerSettings(
        max_runs=5,
        budgets={"emulated": Budget(requests_per_minute=12)},
        tenants=(Tenant(name="b", weight=2),),
    )
    for quarter in range(1, 40, 3):
        async with world(server=serving(), pool=PoolSettings(max_connections=2), settings=settings) as w:
            inner = an_agent(name="inner")

            @tool
            async def ask(scheduler: str = "") -> str:
                """Ask the inner one."""
                return (await inner.run(w.scheduler, scheduler)).text  # noqa: B023 - it ends with its world

            outer = an_agent(2, ask)

            async def run(tenant: str) -> None:
                await outer.run(w.scheduler, "go", tenant=tenant)  # noqa: B023

            with trio.move_on_after(quarter / 4):
                async with trio.open_nursery() as nursery:
                    for tenant in "aabbcc":
                        nursery.start_soon(run, tenant)
            stats = w.scheduler.stats().admission
            assert (stats.runs, stats.runs_waiting, stats.in_flight, stats.waiting) == (0, 0, 0, 0)
            await trio.sleep(30)
            w.assert_quiet()

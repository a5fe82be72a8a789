"""A worker on trio's clock: what it takes, how it stops, and what another finds when it is gone."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from pool.emulator import EmulatorSettings, Latency
from pool.wire.codec import from_json
from scheduler.agent import Agent
from scheduler.tools import tool
from scheduler.worker.queue import QueueSettings, State
from scheduler.worker.steps import ALLOWED, answer_step
from scheduler.worker.worker import Phase, Why, Worker
from tests.worker.desk import LEASE, Desk, desk, job, plain, steps_text

SLOW = EmulatorSettings(latency=Latency(base=1.0))


def kill(worker: Worker, the_desk: Desk) -> None:
    """Let a worker fall silent, as if by SIGKILL: nothing is handed back, no lease is renewed."""

    async def nothing(*_: Any, **__: Any) -> Any:
        await trio.sleep_forever()

    class Cut:
        settings = worker.queue.settings

        def __getattr__(self, _name: str) -> Any:
            return nothing

    worker.queue = worker._bench.queue = Cut()
    for doing in worker._doing:
        doing.lose()


async def test_jobs_are_done(autojump_clock: object) -> None:
    async with desk(server=SLOW) as d:
        await d.put(*(job(f"j{number}") for number in range(10)))
        worker = d.hire(concurrency=4)
        for number in range(10):
            result = await d.result(f"j{number}")
            assert (result["outcome"], result["turns"], result["tools_executed"]) == ("completed", 3, 2)
        assert worker.ended == {"done": 10}
        assert len(d.ran) == len(set(d.ran)) == 20


async def test_it_takes_only_what_it_has_room_for(autojump_clock: object) -> None:
    async with desk(server=SLOW) as d:
        await d.put(*(job(f"j{number}") for number in range(5)))
        worker = d.hire(concurrency=2)
        await trio.sleep(1)
        counts = await d.queue.counts()
        assert (counts.running, counts.due, worker.running) == (2, 3, 2)
        await d.ended(*(f"j{number}" for number in range(5)))


async def test_the_steps_are_kept_as_they_are_done(autojump_clock: object) -> None:
    async with desk(server=SLOW, tool_seconds=5.0) as d:
        await d.put(job("one", "calls=1 parallel=2"))
        d.hire()
        await trio.sleep(3)
        assert steps_text(plain(await d.queue.steps("one"))) == ["turn"]
        await d.result("one")
        kinds = steps_text(plain(await d.queue.steps("one")))
        assert kinds == ["turn", "results", "results", "turn"]


@pytest.mark.parametrize("moment", [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5])
@pytest.mark.parametrize("store", [False, True])
async def test_another_goes_on_where_a_dead_one_was(
    autojump_clock: object, moment: float, store: bool
) -> None:
    async with desk(server=SLOW, tool_seconds=1.0, store=store) as d:
        await d.put(job("one", "calls=3"))
        first = d.hire()
        await trio.sleep(moment)
        kill(first, d)
        at_kill = len(await d.queue.steps("one"))
        started = trio.current_time()
        second = d.hire()
        result = await d.result("one")
        assert trio.current_time() - started < LEASE + 10
        record = await d.queue.get("one")
        assert (record.takes, record.worker) == (2, second.info.id)
        # Turns that were complete are not taken again; and a tool that was running runs again for the same call.
        assert result["turns"] == 4
        assert result["tools_executed"] == 3
        repeated = 1 if at_kill in (1, 3, 5) else 0
        assert len(set(d.ran)) == 3
        assert len(d.ran) <= 3 + repeated
        assert d.world.emulator.stats.responses <= 4 + 1
        if 0 < at_kill < 7:
            replays = [reason for reason in result["placements"] if reason.startswith("replay:")]
            assert replays == (["replay:new"] if store else ["replay:new", "replay:resumed"])


async def test_told_to_stop_it_hands_back_at_the_turns_end(autojump_clock: object) -> None:
    async with desk(server=SLOW, tool_seconds=1.0) as d:
        await d.put(job("one", "calls=3"), job("two", "calls=3"))
        first = d.hire(concurrency=1)
        await trio.sleep(0.5)
        first.stop()
        await trio.sleep(1)
        assert first.phase is Phase.DONE
        assert first.why is Why.TOLD
        assert first.ended == {"handed back": 1}
        record = await d.queue.get("one")
        assert (record.state, record.strikes, record.steps) == (State.QUEUED, 0, 1)
        assert d.ran == []
        assert await d.queue.workers() == []
        d.hire()
        assert (await d.result("one"))["turns"] == 4
        assert d.world.emulator.stats.responses == 4 + 4


async def test_an_answer_that_comes_while_it_stops_is_recorded(autojump_clock: object) -> None:
    async with desk(server=SLOW) as d:
        await d.put(job("one", "calls=0"))
        worker = d.hire()
        await trio.sleep(0.5)
        worker.stop()
        await d.result("one")
        assert worker.ended == {"done": 1}


async def test_after_the_grace_it_hands_back_anyway(autojump_clock: object) -> None:
    async with desk(server=SLOW, tool_seconds=100.0) as d:
        await d.put(job("one", "calls=1"))
        worker = d.hire(grace=5.0)
        await trio.sleep(3)
        worker.stop()
        await trio.sleep(4.5)
        assert (await d.queue.get("one")).state is State.RUNNING
        await trio.sleep(1)
        assert worker.phase is Phase.DONE
        record = await d.queue.get("one")
        assert (record.state, record.steps) == (State.QUEUED, 1)


async def test_a_long_job_keeps_its_lease(autojump_clock: object) -> None:
    async with desk(server=SLOW, tool_seconds=LEASE * 4) as d:
        await d.put(job("one", "calls=1"))
        d.hire()
        d.hire()
        await d.result("one")
        assert (await d.queue.get("one")).takes == 1


async def test_a_job_that_was_dropped_is_left_alone(autojump_clock: object) -> None:
    async with desk(server=SLOW, tool_seconds=LEASE * 4) as d:
        await d.put(job("one", "calls=1"))
        worker = d.hire()
        await trio.sleep(3)
        await d.queue.drop("one")
        await trio.sleep(LEASE)
        assert worker.ended == {"lost": 1}
        await d.put(job("two", "calls=0"))
        await d.result("two")


async def test_an_outage_of_the_queue_costs_nothing(autojump_clock: object) -> None:
    async with desk(server=SLOW) as d:
        await d.put(job("one", "calls=2"), job("two", "calls=2"))
        worker = d.hire(concurrency=1)
        await trio.sleep(0.5)
        d.queue.down = True
        await trio.sleep(LEASE * 3)
        d.queue.down = False
        assert (await d.result("one"))["turns"] == (await d.result("two"))["turns"] == 3
        assert worker.ended == {"done": 2}
        assert d.world.emulator.stats.responses == 6


async def test_a_failing_job_harms_no_other(autojump_clock: object) -> None:
    async with desk(server=SLOW, max_turns=2) as d:
        await d.put(job("endless", "calls=9"), job("fine", "calls=1"))
        d.hire()
        await d.result("fine")
        (record,) = await d.ended("endless")
        assert record.cause is not None
        assert (record.state, record.cause.type) == (State.DEAD, "BudgetExceeded")
        assert len(d.ran) == 3


async def test_what_may_pass_is_tried_again(autojump_clock: object) -> None:
    async with desk() as d:
        broken = 2

        async def look(at: str) -> str:
            """Look."""
            nonlocal broken
            await trio.lowlevel.checkpoint()
            broken -= 1
            if broken >= 0:
                raise ConnectionError("the database is away")
            return at

        agent = Agent(model="emulated", tools=[tool(fatal=(ConnectionError,))(look)])
        await d.put(job("one", "calls=1"))
        d.hire(agents={"agent": agent})
        result = await d.result("one")
        assert result["turns"] == 2
        assert (await d.queue.get("one")).takes == 3


async def test_a_wrong_key_uses_up_no_job(autojump_clock: object) -> None:
    async with desk() as d:
        d.world.network.down_until = 200.0
        await d.put(job("one", attempts=1))
        worker = d.hire()
        await trio.sleep(150)
        assert worker.fault is not None
        assert (await d.queue.get("one")).strikes == 0
        await d.result("one")
        assert worker.fault is None


async def test_a_deadline_counts_from_when_the_job_was_due(autojump_clock: object) -> None:
    async with desk(server=SLOW, tool_seconds=10.0) as d:
        await d.put(job("late", deadline=5.0), job("short", "calls=1", deadline=12.0))
        await trio.sleep(6)
        d.hire()
        late, short = await d.ended("late", "short")
        assert late.cause is not None
        assert late.cause.type == "DeadlineExceeded"
        assert "queued" in late.cause.message
        assert short.cause is not None
        assert short.cause.type == "DeadlineExceeded"
        assert short.ended_at == pytest.approx(short.due_at + 12, abs=0.2)


async def test_a_result_over_the_limit_is_a_dead_letter_and_costs_nothing_when_retried(
    autojump_clock: object,
) -> None:
    async with desk() as d:
        await d.put(job("big", "calls=1"))
        small = d.hire(result_limit=50)
        (record,) = await d.ended("big")
        assert record.cause is not None
        assert record.cause.type == "ResultTooLarge"
        assert "limit 50" in record.cause.message
        small.stop()
        await trio.sleep(5)
        responses = d.world.emulator.stats.responses
        await d.queue.retry("big")
        d.hire()
        assert (await d.result("big"))["turns"] == 2
        assert d.world.emulator.stats.responses == responses


async def test_a_checkpoint_over_the_limit_is_a_dead_letter(autojump_clock: object) -> None:
    async with desk() as d:
        await d.put(job("big", "calls=5"))
        d.hire(checkpoint_limit=1500)
        (record,) = await d.ended("big")
        assert record.cause is not None
        assert record.cause.type == "CheckpointTooLarge"


async def test_a_tool_that_must_not_run_twice_waits_for_a_person(autojump_clock: object) -> None:
    async with desk(server=SLOW, tool_seconds=5.0, repeatable=False) as d:
        await d.put(job("one", "calls=2"))
        first = d.hire()
        await trio.sleep(3)
        assert len(d.ran) == 1
        kill(first, d)
        d.hire()
        (record,) = await d.ended("one")
        assert record.cause is not None
        assert record.cause.type == "CallInDoubt"
        assert d.ran[0] in record.cause.message
        assert len(d.ran) == 1


@pytest.mark.parametrize("answered", [False, True])
async def test_and_the_person_says_how_it_goes_on(autojump_clock: object, answered: bool) -> None:
    async with desk(server=SLOW, tool_seconds=5.0, repeatable=False) as d:
        await d.put(job("one", "calls=2"))
        first = d.hire()
        await trio.sleep(3)
        kill(first, d)
        d.hire()
        await d.ended("one")
        await d.queue.retry("one", steps=[answer_step(d.ran[0], "it had worked") if answered else ALLOWED])
        await d.result("one")
        if answered:
            assert len(d.ran) == len(set(d.ran)) == 2
        else:
            assert len(d.ran) == 3
            assert len(set(d.ran)) == 2


async def test_a_call_that_had_not_begun_is_no_doubt(autojump_clock: object) -> None:
    async with desk(server=SLOW, tool_seconds=1.0, repeatable=False) as d:
        await d.put(job("one", "calls=2"))
        first = d.hire()
        await trio.sleep(2.5)  # the first call is over, the second turn under way
        kill(first, d)
        d.hire()
        await d.result("one")
        assert len(d.ran) == len(set(d.ran)) == 2


async def test_follow_ups_go_on_where_the_conversation_was(autojump_clock: object) -> None:
    async with desk(server=SLOW) as d:
        await d.put(job("a", "calls=1", conversation="c"), job("b", "calls=0", conversation="c"))
        d.hire()
        await d.ended("a", "b")
        b = await d.queue.get("b")
        assert b.result is not None
        assert from_json(b.result)["placements"] == ["hot"]


async def test_a_follow_up_at_another_worker_is_a_replay(autojump_clock: object) -> None:
    async with desk(server=SLOW, settings=QueueSettings(lease=LEASE, head_start=0.0)) as d:
        await d.put(job("a", "calls=1", conversation="c"))
        first = d.hire()
        await d.ended("a")
        first.stop()
        await trio.sleep(1)
        await d.put(job("b", "calls=1", conversation="c"))
        d.hire()
        await d.ended("b")
        b = await d.queue.get("b")
        assert b.result is not None
        assert from_json(b.result)["placements"] == ["replay:resumed", "hot"]


async def test_memory_over_the_limit_ends_the_worker_and_no_job(autojump_clock: object) -> None:
    async with desk(server=SLOW, tool_seconds=LEASE) as d:
        await d.put(job("one", "calls=2"))
        fat = d.hire(memory_limit=1)
        await trio.sleep(LEASE * 2)
        assert (fat.phase, fat.why) == (Phase.DONE, Why.MEMORY)
        d.hire()
        await d.result("one")


async def test_a_poison_job_takes_no_neighbour_along(autojump_clock: object) -> None:
    """Whoever runs `poison` dies at once. The others lose their worker with it, and are done in the end."""
    async with desk(server=SLOW, tool_seconds=2.0) as d:
        await d.put(job("poison", attempts=3), *(job(f"j{number}", attempts=2) for number in range(6)))
        worker = d.hire(concurrency=3)
        died = 0
        with trio.fail_after(2000):
            while (await d.queue.counts()).dead + (await d.queue.counts()).done < 7:
                await trio.sleep(0.25)
                if any(doing.claim.job.id == "poison" for doing in worker._doing):
                    kill(worker, d)
                    died += 1
                    worker = d.hire(concurrency=3)
        assert died == 3
        (record,) = await d.ended("poison")
        assert record.cause is not None
        assert record.cause.type == "WorkerLost"
        for number in range(6):
            await d.result(f"j{number}")

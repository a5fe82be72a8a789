"""What every engine of a queue promises: the same tests for all, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from scheduler.worker.errors import JobConflict, JobNotFound, LeaseLost, WrongState
from scheduler.worker.job import Job
from scheduler.worker.queue import (
    FOLLOWED,
    Cause,
    Claim,
    Counts,
    Filter,
    Queue,
    QueueSettings,
    Receipt,
    State,
    Step,
    WorkerInfo,
)
from tests.worker.stages import STAGES, Stage

LEASE, HEAD_START, RETENTION, DEAD_RETENTION = 10.0, 2.0, 100.0, 200.0
SETTINGS = QueueSettings(
    lease=LEASE, head_start=HEAD_START, retention=RETENTION, dead_retention=DEAD_RETENTION
)
ANN, BOB = WorkerInfo(id="ann", agents=("agent",)), WorkerInfo(id="bob", agents=("agent",))
OOPS = Cause(type="Oops", message="it broke", code="E1")


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest) -> Stage:
    return STAGES[request.param](request)


@pytest.fixture
async def queue(stage: Stage) -> AsyncIterator[Queue]:
    async with stage.open(SETTINGS) as opened:
        yield opened


def job(id: str, **fields: object) -> Job:  # noqa: A002
    return Job(**{"id": id, "input": f"do {id}", "agent": "agent", **fields})  # type: ignore[arg-type]  # by name


async def take(queue: Queue, worker: WorkerInfo = ANN, limit: int = 100, suspects: int = 100) -> list[Claim]:
    return await queue.take(worker, limit=limit, suspects=suspects)


async def taken(queue: Queue, worker: WorkerInfo = ANN, limit: int = 100, suspects: int = 100) -> list[str]:
    return [claim.job.id for claim in await take(queue, worker, limit, suspects)]


async def take_one(queue: Queue, worker: WorkerInfo = ANN) -> Claim:
    (claim,) = await take(queue, worker)
    return claim


async def test_a_job_goes_in_and_its_result_comes_out(queue: Queue, stage: Stage) -> None:
    one = job(
        "one",
        input=({"role": "user", "content": "hi"},),
        tenant="t",
        priority=2.5,
        deadline=60.0,
        attempts=5,
        metadata={"k": "v"},
        conversation="c",
    )
    assert await queue.put([one]) == [Receipt(id="one", new=True, state=State.QUEUED)]
    stage.advance(3)
    claim = await take_one(queue)
    assert claim.job == one
    assert (claim.worker, claim.strikes, claim.steps, claim.chapter, claim.age) == ("ann", 0, 0, 0, 3.0)
    record = await queue.get("one")
    assert (record.state, record.worker, record.takes, record.result) == (State.RUNNING, "ann", 1, None)
    assert (record.enqueued_at, record.due_at, record.started_at) == (
        stage.now() - 3,
        stage.now() - 3,
        stage.now(),
    )
    stage.advance(1)
    await queue.finish(claim, b"result")
    record = await queue.get("one")
    assert (record.job, record.state, record.result, record.ended_at) == (
        one,
        State.DONE,
        b"result",
        stage.now(),
    )
    assert await take(queue) == []


async def test_the_same_job_again_is_no_other(queue: Queue) -> None:
    await queue.put([job("one")])
    assert await queue.put([job("two"), job("one"), job("two")]) == [
        Receipt(id="two", new=True, state=State.QUEUED),
        Receipt(id="one", new=False, state=State.QUEUED),
        Receipt(id="two", new=False, state=State.QUEUED),
    ]
    for claim in await take(queue):
        await queue.finish(claim, b"")
    assert (await queue.put([job("one")]))[0] == Receipt(id="one", new=False, state=State.DONE)
    assert await take(queue) == []


async def test_the_same_id_with_other_content_is_refused_with_all_that_came_along(queue: Queue) -> None:
    await queue.put([job("one"), job("two")])
    with pytest.raises(JobConflict) as caught:
        await queue.put([job("new"), job("one", priority=1.0), job("two", input="else")])
    assert caught.value.job_ids == ("one", "two")
    with pytest.raises(JobConflict):
        await queue.put([job("three"), job("three", tenant="other")])
    assert await taken(queue) == ["one", "two"]


async def test_order(queue: Queue, stage: Stage) -> None:
    await queue.put([job("a"), job("b"), job("high", priority=1.0), job("low", priority=-0.5)])
    stage.advance(1)
    await queue.put([job("later"), job("early", not_before=stage.now() - 100)])
    assert await taken(queue, limit=2) == ["high", "a"]
    assert await taken(queue) == ["b", "later", "early", "low"]


async def test_not_before(queue: Queue, stage: Stage) -> None:
    await queue.put([job("later", not_before=stage.now() + 5, priority=9.0), job("now")])
    counts = await queue.counts()
    assert (counts.due, counts.later) == (1, 1)
    assert await taken(queue) == ["now"]
    stage.advance(4.9)
    assert await taken(queue) == []
    stage.advance(0.2)
    claim = await take_one(queue)
    assert claim.job.id == "later"
    assert claim.age == pytest.approx(0.1)


async def test_only_for_agents_that_the_worker_has(queue: Queue) -> None:
    await queue.put([job("a"), job("b", agent="other"), job("c", agent="")])
    assert await taken(queue, WorkerInfo(id="w", agents=("more", "other"))) == ["b", "c"]
    assert await taken(queue) == ["a"]


async def test_nothing_is_handed_out_twice(queue: Queue, stage: Stage) -> None:
    await queue.put([job(str(number)) for number in range(60)])
    found: list[str] = []

    async def work(worker: WorkerInfo) -> None:
        async with stage.open(SETTINGS) as mine:
            while ids := await taken(mine, worker, limit=3):
                found.extend(ids)

    async with trio.open_nursery() as nursery:
        for worker in (ANN, BOB):
            nursery.start_soon(work, worker)
    assert sorted(found, key=int) == [str(number) for number in range(60)]


async def test_a_lease_lasts_while_it_is_renewed(queue: Queue, stage: Stage) -> None:
    await queue.put([job("one")])
    claim = await take_one(queue)
    for _ in range(5):
        stage.advance(LEASE * 0.6)
        assert await queue.beat(ANN, [claim]) == []
        assert await take(queue, BOB) == []
    stage.advance(LEASE * 1.1)
    second = await take_one(queue, BOB)
    assert second.token > claim.token
    assert (second.strikes, second.job) == (1, claim.job)
    cause = (await queue.get("one")).cause
    assert cause is not None
    assert cause.type == "WorkerLost"
    assert "ann" in cause.message


async def test_a_worker_whose_lease_was_taken_records_nothing(queue: Queue, stage: Stage) -> None:
    await queue.put([job("one")])
    old = await take_one(queue)
    await queue.append(old, 0, b"mine")
    stage.advance(LEASE + 1)
    new = await take_one(queue, BOB)
    for attempt in (
        lambda: queue.append(old, 1, b"late"),
        lambda: queue.finish(old, b"late"),
        lambda: queue.fail(old, OOPS),
        lambda: queue.fail(old, OOPS, retry_in=1.0),
        lambda: queue.history(old),
    ):
        with pytest.raises(LeaseLost) as caught:
            await attempt()
        assert (caught.value.job_id, caught.value.token) == ("one", old.token)
    assert await queue.beat(ANN, [old]) == [old]
    await queue.release([old])
    assert (await queue.get("one")).state is State.RUNNING
    await queue.append(new, 1, b"theirs")
    await queue.finish(new, b"right")
    with pytest.raises(LeaseLost):
        await queue.finish(old, b"late")
    assert (await queue.get("one")).result == b"right"
    assert [step.body for step in await queue.steps("one")] == [b"mine", b"theirs"]


async def test_a_late_worker_that_nobody_has_replaced_goes_on(queue: Queue, stage: Stage) -> None:
    await queue.put([job("one")])
    claim = await take_one(queue)
    stage.advance(LEASE * 3)
    assert await queue.beat(ANN, [claim]) == []
    await queue.finish(claim, b"late, but the only one")
    assert (await queue.get("one")).state is State.DONE


async def test_a_result_is_recorded_once(queue: Queue) -> None:
    await queue.put([job("one")])
    claim = await take_one(queue)
    await queue.finish(claim, b"first")
    await queue.finish(claim, b"again, because the answer was lost")
    assert (await queue.get("one")).result == b"first"


async def test_steps(queue: Queue, stage: Stage) -> None:
    await queue.put([job("one")])
    claim = await take_one(queue)
    await queue.append(claim, 0, b"zero")
    await queue.append(claim, 1, b"\x00\xff")
    await queue.append(claim, 1, b"again, because the answer was lost")
    assert [(s.job_id, s.index, s.body) for s in await queue.steps("one", after=1)] == [
        ("one", 1, b"\x00\xff")
    ]
    stage.advance(LEASE + 1)
    second = await take_one(queue, BOB)
    assert second.steps == 2
    before, own = await queue.history(second)
    assert before == []
    assert [step.body for step in own] == [b"zero", b"\x00\xff"]
    await queue.append(second, 2, b"two")
    assert (await queue.get("one")).steps == 3
    assert await queue.steps("nobody") == []


async def test_a_job_that_keeps_losing_its_worker_ends_in_the_dead_letters(
    queue: Queue, stage: Stage
) -> None:
    await queue.put([job("poison", attempts=3)])
    for strikes in range(3):
        assert (await take_one(queue)).strikes == strikes
        stage.advance(LEASE + 1)
    assert await queue.beat(BOB, []) == []
    record = await queue.get("poison")
    assert (record.state, record.strikes, record.takes) == (State.DEAD, 3, 3)
    assert record.cause is not None
    assert record.cause.type == "WorkerLost"
    assert await take(queue) == []
    assert await queue.counts() == Counts(dead=1)


async def test_a_step_takes_the_strikes_back(queue: Queue, stage: Stage) -> None:
    await queue.put([job("slow", attempts=2)])
    for index in range(4):
        claim = await take_one(queue)
        assert claim.strikes == (index > 0)
        await queue.append(claim, index, b"")
        stage.advance(LEASE + 1)
    await queue.finish(await take_one(queue), b"")


async def test_suspects_come_one_at_a_time(queue: Queue, stage: Stage) -> None:
    await queue.put([job("a"), job("b"), job("c")])
    await take(queue)
    stage.advance(LEASE + 1)
    await queue.put([job("d")])
    first = await take(queue, suspects=1)
    assert [(claim.job.id, claim.strikes) for claim in first] == [("a", 1), ("d", 0)]
    assert await taken(queue, suspects=0) == []
    await queue.append(first[0], 0, b"innocent")
    assert await taken(queue, suspects=1) == ["b"]


async def test_failures(queue: Queue, stage: Stage) -> None:
    await queue.put([job("one", attempts=2)])
    claim = await take_one(queue)
    assert await queue.fail(claim, OOPS, retry_in=5.0) is State.QUEUED
    assert await queue.fail(claim, OOPS, retry_in=5.0) is State.QUEUED
    record = await queue.get("one")
    assert (record.state, record.strikes, record.cause) == (State.QUEUED, 1, OOPS)
    assert record.due_at == stage.now() + 5
    stage.advance(5)
    claim = await take_one(queue)
    assert await queue.fail(claim, OOPS, retry_in=5.0) is State.DEAD
    assert await queue.fail(claim, OOPS, retry_in=5.0) is State.DEAD
    assert (await queue.get("one")).ended_at == stage.now()


async def test_a_failure_for_good(queue: Queue) -> None:
    await queue.put([job("one", attempts=9)])
    claim = await take_one(queue)
    assert await queue.fail(claim, OOPS) is State.DEAD
    record = await queue.get("one")
    assert (record.state, record.cause) == (State.DEAD, OOPS)


async def test_handed_back_as_it_was(queue: Queue, stage: Stage) -> None:
    await queue.put([job("one"), job("two")])
    claims = await take(queue)
    await queue.append(claims[0], 0, b"done")
    stage.advance(1)
    await queue.release(claims)
    await queue.release(claims)
    assert await queue.beat(ANN, claims) == claims
    again = await take(queue, BOB)
    assert [(c.job.id, c.strikes, c.steps, c.age) for c in again] == [("one", 0, 1, 1.0), ("two", 0, 0, 1.0)]
    assert all(new.token > old.token for new, old in zip(again, claims, strict=True))
    with pytest.raises(LeaseLost):
        await queue.finish(claims[0], b"")


async def test_retry(queue: Queue) -> None:
    await queue.put([job("one", attempts=1)])
    claim = await take_one(queue)
    await queue.append(claim, 0, b"zero")
    await queue.fail(claim, OOPS)
    await queue.retry("one", steps=[b"one", b"two"])
    with pytest.raises(WrongState, match="queued"):
        await queue.retry("one")
    claim = await take_one(queue)
    assert (claim.strikes, claim.steps) == (0, 3)
    assert [step.body for step in (await queue.history(claim))[1]] == [b"zero", b"one", b"two"]
    with pytest.raises(JobNotFound):
        await queue.retry("nobody")


async def test_drop(queue: Queue) -> None:
    await queue.put([job("one"), job("two")])
    claims = await take(queue, limit=1)
    await queue.append(claims[0], 0, b"")
    await queue.drop("one")
    await queue.drop("one")
    with pytest.raises(JobNotFound):
        await queue.get("one")
    assert await queue.steps("one") == []
    with pytest.raises(LeaseLost):
        await queue.finish(claims[0], b"")
    await queue.put([job("one", input="other content is fine now")])
    assert await taken(queue) == ["two", "one"]


async def test_a_conversation_is_done_in_order_one_at_a_time(queue: Queue, stage: Stage) -> None:
    await queue.put([job("a", conversation="c"), job("b", conversation="c", priority=9.0), job("x")])
    claims = await take(queue)
    assert [claim.job.id for claim in claims] == ["a", "x"]
    await queue.append(claims[0], 0, b"a0")
    await queue.append(claims[0], 1, b"a1")
    assert await take(queue) == []
    await queue.finish(claims[0], b"")
    claim = await take_one(queue, BOB)
    assert (claim.job.id, claim.chapter) == ("b", 1)
    await queue.append(claim, 0, b"b0")
    before, own = await queue.history(claim)
    assert [(s.job_id, s.index, s.body) for s in before] == [("a", 0, b"a0"), ("a", 1, b"a1")]
    assert [step.body for step in own] == [b"b0"]


async def test_an_earlier_job_that_is_not_due_holds_its_conversation(queue: Queue, stage: Stage) -> None:
    await queue.put([job("a", conversation="c", not_before=stage.now() + 5), job("b", conversation="c")])
    assert await take(queue) == []
    stage.advance(5)
    assert await taken(queue) == ["a"]


async def test_a_dead_job_does_not_hold_its_conversation_and_starts_anew_if_retried(queue: Queue) -> None:
    await queue.put([job("a", conversation="c"), job("b", conversation="c")])
    claim = await take_one(queue)
    await queue.append(claim, 0, b"a0")
    await queue.fail(claim, OOPS)
    claim = await take_one(queue)
    assert (claim.job.id, claim.chapter) == ("b", 0)
    await queue.append(claim, 0, b"b0")
    await queue.finish(claim, b"")
    await queue.retry("a")
    claim = await take_one(queue)
    assert (claim.job.id, claim.steps, claim.chapter) == ("a", 0, 1)
    before, own = await queue.history(claim)
    assert [step.body for step in before] == [b"b0"]
    assert own == []


async def test_a_follow_up_goes_first_to_the_worker_that_holds_its_lane(queue: Queue, stage: Stage) -> None:
    await queue.beat(BOB, [])
    await queue.put([job("a", conversation="c")])
    await queue.finish(await take_one(queue), b"", holds=True)
    await queue.put([job("b", conversation="c"), job("free")])
    assert await taken(queue, BOB) == ["free"]
    stage.advance(HEAD_START - 0.1)
    assert await taken(queue, BOB) == []
    assert await taken(queue, ANN) == ["b"]


async def test_its_own_follow_ups_come_first(queue: Queue, stage: Stage) -> None:
    await queue.put([job("a", conversation="c")])
    await queue.finish(await take_one(queue), b"", holds=True)
    await queue.put([job("older"), job("b", conversation="c"), job("high", priority=1.0)])
    assert await taken(queue) == ["high", "b", "older"]


async def test_after_the_head_start_anyone_may_have_it(queue: Queue, stage: Stage) -> None:
    await queue.put([job("a", conversation="c"), job("b", conversation="c")])
    first = await take_one(queue)
    stage.advance(5)
    await queue.finish(first, b"", holds=True)
    stage.advance(HEAD_START / 2)  # it was due long ago, but could not be had before its predecessor ended
    assert await taken(queue, BOB) == []
    stage.advance(HEAD_START)
    assert await taken(queue, BOB) == ["b"]


@pytest.mark.parametrize("how", ["left", "unheard", "holds nothing"])
async def test_nobody_waits_for_a_worker_that_is_gone(queue: Queue, stage: Stage, how: str) -> None:
    await queue.put([job("a", conversation="c")])
    await queue.finish(await take_one(queue), b"", holds=how != "holds nothing")
    if how == "left":
        await queue.leave("ann")
    if how == "unheard":
        stage.advance(LEASE + 1)
    await queue.put([job("b", conversation="c")])
    assert await taken(queue, BOB) == ["b"]


async def test_workers(queue: Queue, stage: Stage) -> None:
    await queue.take(ANN, limit=1)
    stage.advance(LEASE / 2)
    busy = WorkerInfo(
        id="bob", agents=("a", "b"), host="h", pid=7, concurrency=4, running=2, since=stage.now()
    )
    await queue.beat(busy, [])
    assert await queue.workers() == [ANN, busy]
    stage.advance(LEASE * 0.7)
    assert await queue.workers() == [busy]
    await queue.leave("bob")
    assert await queue.workers() == []


async def test_retention(queue: Queue, stage: Stage) -> None:
    await queue.put([job("done"), job("dead"), job("queued")])
    done, dead = await take(queue, limit=2)
    await queue.append(done, 0, b"")
    await queue.finish(done, b"")
    await queue.fail(dead, OOPS)
    stage.advance(RETENTION - 1)
    await queue.beat(ANN, [])
    assert await queue.counts() == Counts(due=1, done=1, dead=1, oldest=RETENTION - 1)
    stage.advance(2)
    await queue.beat(ANN, [])
    assert await queue.steps("done") == []
    with pytest.raises(JobNotFound):
        await queue.get("done")
    stage.advance(DEAD_RETENTION - RETENTION)
    await queue.beat(ANN, [])
    assert [record.job.id for record in await queue.find(Filter(), limit=9)] == ["queued"]


async def test_a_conversation_is_kept_as_long_as_its_last_job(queue: Queue, stage: Stage) -> None:
    await queue.put([job("a", conversation="c")])
    claim = await take_one(queue)
    await queue.append(claim, 0, b"a0")
    await queue.finish(claim, b"")
    stage.advance(RETENTION - 1)
    await queue.put([job("b", conversation="c")])
    await queue.finish(await take_one(queue), b"")
    stage.advance(RETENTION - 1)
    await queue.beat(ANN, [])
    await queue.put([job("c", conversation="c")])
    claim = await take_one(queue)
    assert claim.chapter == 2
    assert [step.body for step in (await queue.history(claim))[0]] == [b"a0"]


async def test_find(queue: Queue) -> None:
    await queue.put(
        [
            job("x1", tenant="t"),
            job("x2", agent="other", conversation="c"),
            job("y1", priority=5.0),
            job("y2", tenant="t"),
        ]
    )
    (claim,) = await take(queue, limit=1)
    await queue.finish(claim, b"result")

    async def ids(limit: int = 9, after: str | None = None, **wanted: object) -> list[str]:
        found = await queue.find(Filter(**wanted), limit=limit, after=after)  # type: ignore[arg-type]  # by name
        assert all(record.result is None for record in found)
        return [record.job.id for record in found]

    assert await ids() == ["x1", "x2", "y1", "y2"]
    assert await ids(limit=2) == ["x1", "x2"]
    assert await ids(limit=2, after="x2") == ["y1", "y2"]
    assert await ids(tenant="t") == ["x1", "y2"]
    assert await ids(agent="other") == await ids(conversation="c") == ["x2"]
    assert await ids(prefix="y") == ["y1", "y2"]
    assert await ids(state=State.DONE) == ["y1"]
    assert await ids(state=State.QUEUED, tenant="t", prefix="x") == ["x1"]


async def test_counts(queue: Queue, stage: Stage) -> None:
    assert await queue.counts() == Counts()
    await queue.put([job("a"), job("b"), job("c"), job("d"), job("later", not_before=stage.now() + 50)])
    stage.advance(4)
    claims = await take(queue, limit=3)
    await queue.finish(claims[0], b"")
    await queue.fail(claims[1], OOPS)
    assert await queue.counts() == Counts(due=1, later=1, running=1, done=1, dead=1, oldest=4.0)


async def test_a_change_is_noticed(queue: Queue, stage: Stage) -> None:
    async with stage.open(SETTINGS) as other, trio.open_nursery() as nursery:
        for writer in (queue, other):
            with trio.fail_after(20):
                while not await taken(queue):
                    nursery.start_soon(writer.put, [job(f"by {id(writer)}")])
                    await queue.changed(60)
    with trio.fail_after(20):
        await queue.changed(0.01)


async def test_it_is_all_there_when_opened_again(stage: Stage) -> None:
    async with stage.open(SETTINGS) as queue:
        await queue.put([job("one"), job("two")])
        claim = (await take(queue))[0]
        await queue.append(claim, 0, b"zero")
    async with stage.open(SETTINGS) as queue:
        await queue.append(claim, 1, b"one")
        await queue.finish(claim, b"result")
        assert (await queue.get("one")).result == b"result"
        assert (await queue.get("two")).state is State.RUNNING


async def test_a_cancelled_call_has_been_made_or_not(queue: Queue) -> None:
    for number in range(20):
        with trio.move_on_after(number * 0.0002):
            await queue.put([job(f"{number}a"), job(f"{number}b")])
    found = {record.job.id for record in await queue.find(Filter(), limit=99)}
    assert all((f"{number}a" in found) == (f"{number}b" in found) for number in range(20))


async def test_tenants_take_turns(queue: Queue, stage: Stage) -> None:
    await queue.put([job(f"a{number}", tenant="ann") for number in range(6)])
    stage.advance(1)
    await queue.put([job("b0", tenant="bob"), job("b1", tenant="bob"), job("none")])
    await queue.put([job("high", tenant="ann", priority=1.0)])
    assert await taken(queue, limit=5) == ["high", "a0", "b0", "none", "a1"]
    stage.advance(1)
    # Who comes later stands behind what was handed out, not before it: what a tenant did not use is not saved up.
    await queue.put([job("late0", tenant="eve"), job("late1", tenant="eve"), job("b2", tenant="bob")])
    assert await taken(queue) == ["b1", "a2", "late0", "b2", "a3", "late1", "a4", "a5"]


async def test_a_job_draws_its_turn_when_it_is_due(queue: Queue, stage: Stage) -> None:
    await queue.put([job("later", tenant="ann", not_before=stage.now() + 5)])
    await queue.put([job(f"a{number}", tenant="ann") for number in range(2)])
    await queue.put([job(f"b{number}", tenant="bob") for number in range(3)])
    stage.advance(6)
    assert await taken(queue) == ["a0", "b0", "a1", "b1", "b2", "later"]


async def test_what_was_handed_back_keeps_its_turn_and_what_is_tried_again_draws_another(
    queue: Queue, stage: Stage
) -> None:
    await queue.put([job(name) for name in ("back", "again", "x", "y")])
    back, again = await take(queue, limit=2)
    await queue.release([back])
    await queue.fail(again, OOPS, retry_in=1)
    stage.advance(1)
    assert await taken(queue) == ["back", "x", "y", "again"]


async def test_a_claim_does_not_fit_a_job_that_was_dropped_and_put_again(queue: Queue) -> None:
    await queue.put([job("one")])
    old = await take_one(queue)
    await queue.drop("one")
    await queue.put([job("one", input="something else")])
    new = await take_one(queue)
    with pytest.raises(LeaseLost):
        await queue.append(old, 0, b"of the old one")
    with pytest.raises(LeaseLost):
        await queue.finish(old, b"of the old one")
    assert await queue.beat(ANN, [old, new]) == [old]
    await queue.finish(new, b"right")
    assert (await queue.get("one")).result == b"right"


async def test_who_follows_a_job_is_told_how_far_it_has_come(queue: Queue, stage: Stage) -> None:
    await queue.put([job("one"), job("two")])
    one, two = await take(queue)
    assert await queue.listened([one, two]) == []
    await queue.draft(one, 0, b"nobody listens")
    assert await queue.listen("one") is None
    assert await queue.listened([one, two]) == [one]
    await queue.draft(one, 0, b"It")
    await queue.draft(one, 0, b"It was")
    assert await queue.listen("one") == Step(job_id="one", index=0, body=b"It was")
    assert await queue.listen("two") is None
    assert await queue.steps("one") == []
    stage.advance(FOLLOWED + 1)
    assert await queue.listened([one, two]) == []
    await queue.drop("one")
    assert await queue.listen("one") is None
    assert await queue.listen("nobody") is None

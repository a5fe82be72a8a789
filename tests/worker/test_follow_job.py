"""Follow a job of a queue in a file or in Redis, from trio and asyncio, and wait for its result only so long."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from pool.errors import SettingsError
from pool.wire.codec import to_json
from scheduler import (
    Job,
    JobFailed,
    JobNotFound,
    QueueUnavailable,
    WrongState,
    enqueue,
    follow_job,
    job_result,
    job_result_async,
    open_queue,
)
from scheduler.worker import following, patience
from scheduler.worker.errors import CheckpointUnreadable
from scheduler.worker.queue import Cause, Claim, Queue, WorkerInfo
from scheduler.worker.seal import Seal
from scheduler.worker.steps import draft_step
from tests.support.redis import RedisServer

ANN = WorkerInfo(id="ann", agents=("a",))
TURN = {
    "step": "turn",
    "given": [],
    "facts": {
        "id": "resp_1",
        "status": "completed",
        "why": None,
        "usage": [1, 0, 1, 0, 2],
        "way": ["replay", "replay:new", "c", "l"],
        "bytes": [1, 0, 0],
        "seconds": [0.1, 0.2],
        "attempts": 1,
    },
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "It was."}]}],
}
ANSWER = {"call_id": "c", "output": "seen", "executed": True, "failed": False, "seconds": 0.1}
RESULTS = {"step": "results", "results": [ANSWER]}
_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    server: RedisServer = request.getfixturevalue("shared_redis")
    return f"{server.url}?queue=follow-{next(_numbers)}"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FOLLOW_INTERVAL", 0.001)


async def begun(queue: Queue) -> Claim:
    await queue.put([Job(id="one", input="x", agent="a")])
    (claim,) = await queue.take(ANN, limit=1)
    return claim


async def done(url: str) -> None:
    async with open_queue(url) as queue:
        claim = await begun(queue)
        await queue.append(claim, 0, to_json(TURN))
        await queue.append(claim, 1, to_json(RESULTS))
        await queue.finish(claim, to_json({"output": "an answer"}))


async def test_steps_and_drafts_come_as_they_are_told(url: str) -> None:
    async with open_queue(url) as queue:
        claim = await begun(queue)
        await queue.append(claim, 0, to_json(TURN))
        await queue.append(claim, 1, to_json(RESULTS))
        steps = follow_job(url, "one")
        assert [await anext(steps), await anext(steps)] == [TURN, RESULTS]
        await queue.draft(claim, 2, draft_step("It"))
        assert await anext(steps) == {"step": "draft", "text": "It"}
        await queue.draft(claim, 2, draft_step("It was"))
        assert await anext(steps) == {"step": "draft", "text": "It was"}
        await queue.append(claim, 2, to_json(TURN))  # and the draft is of no interest any more
        assert await anext(steps) == TURN
        await queue.finish(claim, b"{}")
        assert [step async for step in steps] == []


async def test_it_waits_for_what_comes(url: str) -> None:
    seen: list[Mapping[str, Any]] = []
    async with open_queue(url) as queue:
        await queue.put([Job(id="one", input="x", agent="a")])

        async def follow() -> None:
            async for step in follow_job(url, "one"):
                seen.append(step)
                told.set()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                told = trio.Event()
                nursery.start_soon(follow)
                (claim,) = await queue.take(ANN, limit=1)
                while await queue.listened([claim]) == []:
                    pass
                await queue.draft(claim, 0, draft_step("It"))
                await told.wait()
                await queue.append(claim, 0, to_json(TURN))
                await queue.fail(claim, Cause(type="Oops", message="it broke"))
    assert seen == [{"step": "draft", "text": "It"}, TURN]
    with pytest.raises(JobFailed):
        await job_result_async(url, "one")


async def test_who_leaves_early_has_nothing_to_close(url: str) -> None:
    await done(url)
    async for step in follow_job(url, "one"):
        assert step == TURN
        break
    with trio.fail_after(60):
        async for step in follow_job(url, "one"):
            if step == RESULTS:
                break


async def test_who_is_cancelled_while_waiting_can_wait_again(url: str) -> None:
    async with open_queue(url) as queue:
        claim = await begun(queue)
        steps = follow_job(url, "one")
        for _ in range(3):
            with trio.move_on_after(0.02) as scope:
                await anext(steps)
            assert scope.cancelled_caught
        await queue.append(claim, 0, to_json(TURN))
        assert await anext(steps) == TURN


async def test_what_was_found_survives_a_cancellation(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await done(url)
    scope = trio.CancelScope()

    @asynccontextmanager
    async def interrupted(name: str) -> AsyncIterator[Queue]:
        async with open_queue(name) as queue:
            yield queue
        scope.cancel()
        await trio.lowlevel.checkpoint()

    steps = follow_job(url, "one")
    with monkeypatch.context() as patch, scope:
        patch.setattr("scheduler.worker.client.open_queue", interrupted)
        await anext(steps)
    assert scope.cancelled_caught
    assert [step async for step in steps] == [TURN, RESULTS]


async def test_a_queue_that_goes_away_is_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await done(url)
    away = iter([True, False, True, True])

    @asynccontextmanager
    async def unsteady(name: str) -> AsyncIterator[Queue]:
        if next(away, False):
            raise QueueUnavailable(name, "it is away")
        async with open_queue(name) as queue:
            yield queue

    monkeypatch.setattr(patience, "FIRST_DELAY", 0.001)
    monkeypatch.setattr("scheduler.worker.client.open_queue", unsteady)
    steps = follow_job(url, "one")
    with pytest.raises(QueueUnavailable):
        await anext(steps)
    assert [step async for step in steps] == [TURN, RESULTS]
    assert next(away, None) is None


def test_from_asyncio(url: str) -> None:
    async def main() -> list[Mapping[str, Any]]:
        return [step async for step in follow_job(url, "one")]

    trio.run(done, url)
    assert asyncio.run(main()) == [TURN, RESULTS]


def test_asyncio_may_cancel_it(url: str) -> None:
    async def main() -> None:
        steps = follow_job(url, "one")
        waiting = asyncio.ensure_future(anext(steps))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    enqueue(url, [{"id": "one", "input": "x"}])
    asyncio.run(main())


async def test_no_such_job(url: str) -> None:
    with pytest.raises(JobNotFound):
        await anext(follow_job(url, "nobody"))


async def test_encrypted_steps_need_their_key(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WARMLINE_CHECKPOINT_KEY", raising=False)
    keys = tmp_path / "keys"
    keys.write_text(base64.b64encode(bytes(32)).decode())
    seal = Seal.found(str(keys))
    async with open_queue(url) as queue:
        claim = await begun(queue)
        await queue.append(claim, 0, seal.close(to_json(TURN), "one", 0))
        steps = follow_job(url, "one", checkpoint_key_file=str(keys))
        assert await anext(steps) == TURN
        await queue.draft(claim, 1, seal.close(draft_step("It"), "one", 1))
        assert await anext(steps) == {"step": "draft", "text": "It"}
    with pytest.raises(CheckpointUnreadable, match="there is no key here"):
        await anext(follow_job(url, "one"))


def test_a_result_is_waited_for_no_longer_than_one_may(url: str) -> None:
    enqueue(url, [{"id": "one", "input": "x", "agent": "a"}])
    for within in (0, 0.01):
        with pytest.raises(WrongState, match="job 'one' is queued: it has no result yet"):
            job_result(url, "one", within=within)

    async def finish() -> None:
        async with open_queue(url) as queue:
            (claim,) = await queue.take(ANN, limit=1)
            await queue.finish(claim, to_json({"output": "an answer"}))

    trio.run(finish)
    assert job_result(url, "one", within=60)["output"] == "an answer"
    for wrong in (-1, float("nan")):
        with pytest.raises(SettingsError, match="within"):
            job_result(url, "one", within=wrong)

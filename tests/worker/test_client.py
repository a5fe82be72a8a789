"""Enqueue and read results from plain scripts, asyncio and trio."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import trio

from pool.wire.codec import to_json
from scheduler import (
    Job,
    JobConflict,
    JobFailed,
    JobNotFound,
    QueueRefused,
    enqueue,
    enqueue_async,
    job_result,
    job_result_async,
    open_queue,
)
from scheduler.worker.errors import WrongState
from scheduler.worker.queue import Cause, WorkerInfo


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


async def work(url: str, fail: str = "") -> None:
    async with open_queue(url) as queue:
        for claim in await queue.take(WorkerInfo(id="ann", agents=("a",)), limit=9):
            if claim.job.id == fail:
                await queue.fail(claim, Cause(type="Oops", message="it broke"))
            else:
                await queue.finish(claim, to_json({"id": claim.job.id, "output": "an answer"}))


def test_from_a_script(url: str) -> None:
    receipts = enqueue(url, [Job(id="one", input="x"), {"id": "two", "input": "y"}, "z"], agent="a")
    assert [receipt.new for receipt in receipts] == [True] * 3
    assert not enqueue(url, [{"id": "two", "input": "y"}], agent="a")[0].new
    with pytest.raises(WrongState, match="no result yet"):
        job_result(url, "one", wait=False)
    trio.run(work, url, "two")
    assert job_result(url, "one")["output"] == "an answer"
    with pytest.raises(JobFailed) as caught:
        job_result(url, "two")
    assert (caught.value.type, caught.value.problem) == ("Oops", "it broke")
    with pytest.raises(JobNotFound):
        job_result(url, "none")
    with pytest.raises(JobConflict):
        enqueue(url, [{"id": "two", "input": "something else"}])
    with pytest.raises(QueueRefused):
        enqueue("nosuch://", ["x"])


async def test_from_trio(url: str) -> None:
    (receipt,) = await enqueue_async(url, [{"id": "one", "input": "x"}])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, url)
        assert (await job_result_async(url, receipt.id))["output"] == "an answer"
    with pytest.raises(RuntimeError, match="await enqueue_async"):
        enqueue(url, ["x"])


def test_from_asyncio(url: str) -> None:
    async def main() -> object:
        await enqueue_async(url, [{"id": "one", "input": "x"}])
        with pytest.raises(RuntimeError, match="await job_result_async"):
            job_result(url, "one")
        await asyncio.to_thread(lambda: trio.run(work, url))
        return (await job_result_async(url, "one"))["output"]

    assert asyncio.run(main()) == "an answer"

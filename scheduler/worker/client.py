"""Enqueue jobs and read their results, from plain scripts, asyncio and trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import Any, TypeVar

import trio

from pool.wire.codec import from_json
from scheduler.fleet.entry import in_thread, running_library
from scheduler.fleet.verdict import principal
from scheduler.worker.engines import open_queue
from scheduler.worker.errors import JobFailed, WrongState
from scheduler.worker.job import Job
from scheduler.worker.patience import insist
from scheduler.worker.queue import Queue, QueueSettings, Receipt, Record, State
from scheduler.worker.source import JobLike, as_jobs

BATCH = 500
"""Jobs that are put at once: so many are enqueued, or none of them."""
T = TypeVar("T")


def enqueue(
    queue: str, jobs: Iterable[JobLike], *, settings: QueueSettings | None = None, **defaults: Any
) -> list[Receipt]:
    """Enqueue jobs and say what became of each: a `Job`, or a mapping or text as in a tasks file.

    A job that is there already, with the same content, stays as it is; so after an error the same call may simply be
    made again. `defaults` are fields (`agent`, `priority`, `tenant` ...) of jobs that say nothing about them.

    Raises:
        RuntimeError: an event loop is running in this thread: await `enqueue_async`.
        TaskError: a value is no job. Those before it may have been enqueued.
        JobConflict: a job of the same id is there with other content.
        QueueRefused, QueueUnavailable: the queue cannot be used.
    """
    return _here(lambda: _enqueue(queue, jobs, settings, defaults), "enqueue")


async def enqueue_async(
    queue: str, jobs: Iterable[JobLike], *, settings: QueueSettings | None = None, **defaults: Any
) -> list[Receipt]:
    """Do what `enqueue` does, from asyncio or trio."""
    return await _anywhere(lambda: _enqueue(queue, jobs, settings, defaults))


def job_result(queue: str, job_id: str, *, wait: bool = True) -> Mapping[str, Any]:
    """Return a job's result, as a line of a results file has it: `output`, `usage`, `turns` and so on.

    Raises:
        RuntimeError: an event loop is running in this thread: await `job_result_async`.
        JobFailed: it is a dead letter; the cause is in it.
        JobNotFound: there is no such job.
        WrongState: it has no result yet, and `wait` is False.
    """
    return _here(lambda: _result(queue, job_id, wait), "job_result")


async def job_result_async(queue: str, job_id: str, *, wait: bool = True) -> Mapping[str, Any]:
    """Do what `job_result` does, from asyncio or trio."""
    return await _anywhere(lambda: _result(queue, job_id, wait))


async def put_all(queue: Queue, jobs: Iterable[Job]) -> list[Receipt]:
    """Put jobs, batch by batch."""
    receipts: list[Receipt] = []
    rest = iter(jobs)
    while batch := list(islice(rest, BATCH)):
        receipts += await queue.put(batch)
    return receipts


async def ended(queue: Queue, job_id: str) -> Record:
    """Wait until a job is done or dead, also while the queue cannot be reached."""
    while True:
        record = await insist(lambda: queue.get(job_id))
        if record.state in (State.DONE, State.DEAD):
            return record
        await insist(lambda: queue.changed(1.0))


def outcome(record: Record) -> Mapping[str, Any]:
    """Return the result of a job that has ended, or raise `JobFailed`."""
    if record.state is State.DEAD:
        assert record.cause is not None
        raise JobFailed(record.job.id, record.cause.type, record.cause.message)
    if record.result is None:
        raise WrongState(record.job.id, record.state.value, "it has no result yet")
    value: Mapping[str, Any] = from_json(record.result)
    return value


async def _enqueue(
    url: str, jobs: Iterable[JobLike], settings: QueueSettings | None, defaults: Mapping[str, Any]
) -> list[Receipt]:
    async with open_queue(url, settings) as queue:
        return await put_all(queue, as_jobs(jobs, defaults=defaults))


async def _result(url: str, job_id: str, wait: bool) -> Mapping[str, Any]:
    async with open_queue(url) as queue:
        return outcome(await (ended(queue, job_id) if wait else queue.get(job_id)))


def _here(call: Callable[[], Awaitable[T]], name: str) -> T:
    library = running_library()
    if library is not None:
        raise RuntimeError(f"{name}() would block the {library} loop; write: await {name}_async(...)")
    try:
        return trio.run(call)
    except BaseExceptionGroup as group:
        raise principal(group) from None


async def _anywhere(call: Callable[[], Awaitable[T]]) -> T:
    return await (call() if running_library() == "trio" else in_thread(call))

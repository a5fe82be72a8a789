"""Enqueue jobs, follow them and read their results, from plain scripts, asyncio and trio."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from itertools import islice
from typing import Any, TypeVar

import trio
from attrs import define, field

from pool.errors import SettingsError
from pool.wire.codec import from_json
from scheduler.fleet.entry import in_thread, running_library
from scheduler.fleet.verdict import principal
from scheduler.worker.engines import open_queue
from scheduler.worker.errors import JobFailed, WrongState
from scheduler.worker.following import Follower
from scheduler.worker.job import Job
from scheduler.worker.patience import insist
from scheduler.worker.queue import Queue, QueueSettings, Receipt, Record, State
from scheduler.worker.seal import Seal
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


def job_result(
    queue: str, job_id: str, *, wait: bool = True, within: float | None = None
) -> Mapping[str, Any]:
    """Return a job's result, as a line of a results file has it: `output`, `usage`, `turns` and so on.

    `within`: seconds to wait for it at most; for as long as it takes, if None.

    Raises:
        RuntimeError: an event loop is running in this thread: await `job_result_async`.
        JobFailed: it is a dead letter; the cause is in it.
        JobNotFound: there is no such job.
        WrongState: it has no result yet, and `wait` is False or the time is over.
        SettingsError: `within` is no time.
    """
    return _here(lambda: _result(queue, job_id, wait, within), "job_result")


async def job_result_async(
    queue: str, job_id: str, *, wait: bool = True, within: float | None = None
) -> Mapping[str, Any]:
    """Do what `job_result` does, from asyncio or trio."""
    return await _anywhere(lambda: _result(queue, job_id, wait, within))


def follow_job(
    queue: str, job_id: str, *, checkpoint_key_file: str | None = None, accept_unsealed: bool = False
) -> AsyncIterator[Mapping[str, Any]]:
    """Follow a job from its first step until it has ended, from asyncio or trio; then ask for its result.

    Yields what `warmline result --follow --json` prints, by `step`:
        "draft": `text`, what the model has said so far of the turn under way; told anew as it grows, and from its
            beginning when the turn is begun again. Only the worker's latest is told, never recorded.
        "turn": a finished turn; `output` are its items.
        "results": tools have answered; `results` with `call_id`, `output` and `failed` of each.
        "begun", "allowed": a call that must not run twice is about to run; a person has allowed it again.

    The queue is open only while the next is waited for, so the loop may be left anywhere, and there is nothing to
    close. Cancelled while it waits, it has lost nothing: the next is still to come. What comes meanwhile is there
    when it is asked for, of drafts only the latest; a worker tells none when nobody has asked for some seconds.

    `checkpoint_key_file`: the keys of encrypted steps; WARMLINE_CHECKPOINT_KEY, if None. With a key, steps that are
    not encrypted are refused, unless `accept_unsealed`.

    Raises, when the next is asked for (and, at once, SettingsError: a key is none):
        CheckpointUnreadable: a step is encrypted, and its key is not here; or it is not, though there is a key; or it
            is damaged.
        JobNotFound: there is no such job, or it was dropped.
        QueueRefused, QueueUnavailable: the queue cannot be opened. Later it is waited for while it is away.
    """
    seal = Seal.found(checkpoint_key_file, accept_unsealed=accept_unsealed)
    return _Steps(queue, Follower(job_id, seal))


@define(eq=False)
class _Steps(AsyncIterator[Mapping[str, Any]]):
    """No generator: one of those that is left early has to be closed."""

    url: str
    follower: Follower
    _next: deque[Mapping[str, Any]] = field(factory=deque, init=False)
    _begun: bool = field(default=False, init=False)  # it could be opened; later it is waited for

    async def __anext__(self) -> Mapping[str, Any]:
        if not self._next:
            await _anywhere(lambda: insist(self._look) if self._begun else self._look())
        if not self._next:
            raise StopAsyncIteration
        return self._next.popleft()

    async def _look(self) -> None:
        async with open_queue(self.url) as queue:
            self._begun = True
            # Kept before the queue is closed, where a cancellation may come.
            self._next += await self.follower.news(queue)


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


async def _result(url: str, job_id: str, wait: bool, within: float | None) -> Mapping[str, Any]:
    if within is not None and not within >= 0:
        raise SettingsError("within", within, "must be seconds, 0 or more")
    async with open_queue(url) as queue:
        if wait:
            with trio.move_on_after(math.inf if within is None else within):
                return outcome(await ended(queue, job_id))
        return outcome(await queue.get(job_id))


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

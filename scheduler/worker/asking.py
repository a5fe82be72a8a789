"""What `warmline enqueue`, `jobs` and `result` do once their options are plain."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
import trio

from pool.wire.codec import from_json, to_json
from scheduler.commands.output import write
from scheduler.errors import TaskError
from scheduler.fleet.report import plural
from scheduler.worker.client import BATCH, ended, outcome, put_all
from scheduler.worker.engines import open_queue
from scheduler.worker.errors import JobConflict, JobFailed, JobNotFound, QueueRefused
from scheduler.worker.following import Follower
from scheduler.worker.opened import open_tasks
from scheduler.worker.queue import Filter, Queue, Record, State
from scheduler.worker.seal import Seal, in_order
from scheduler.worker.showing import Following, Table, counts_line, details, record_json
from scheduler.worker.source import read_jobs
from scheduler.worker.steps import ALLOWED, answer_step, resumed

T = TypeVar("T")
DEAD, USAGE, NOT_YET = 1, 2, 3


def _with_queue(url: str, ask: Callable[[Queue], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_queue(url) as queue:
            return await ask(queue)

    try:
        return trio.run(run)
    except (QueueRefused, JobConflict, JobNotFound) as error:
        raise _Usage(str(error)) from None


class _Usage(click.ClickException):
    """A mistake that the person can mend."""

    exit_code = USAGE


def enqueue_file(tasks: str, url: str, defaults: Mapping[str, Any], *, as_json: bool) -> None:
    """Enqueue a file, and say what became of it. The whole file is checked before anything is enqueued."""
    with open_tasks(tasks) as (source, lines):
        jobs = list(read_jobs(lines, source=source, defaults=defaults))
    if not jobs:
        raise TaskError("no tasks: the file is empty; put one JSON object a line", source=source)

    async def ask(queue: Queue) -> None:
        receipts = await put_all(queue, jobs)
        new = sum(receipt.new for receipt in receipts)
        if as_json:
            for receipt in receipts:
                write(
                    to_json({"id": receipt.id, "new": receipt.new, "state": receipt.state.value}).decode(),
                    data=True,
                )
        else:
            there = f"; {len(receipts) - new} were there already" if new < len(receipts) else ""
            write(f"{plural(new, 'job')} enqueued in {queue.name}{there}")
        served = {agent for worker in await queue.workers() for agent in worker.agents}
        lonely = sorted({job.agent for job in jobs if job.agent} - served)
        if served and lonely:
            names = ", ".join(lonely)
            write(f"warmline: no worker that lives has the agent {names}; the jobs wait for one", err=True)

    _with_queue(url, ask)


def list_jobs(
    url: str,
    *,
    state: str | None,
    agent: str | None,
    tenant: str | None,
    conversation: str | None,
    prefix: str,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List jobs."""
    wanted = Filter(
        state=None if state is None else State(state),
        agent=agent,
        tenant=tenant,
        conversation=conversation,
        prefix=prefix,
    )

    async def ask(queue: Queue) -> None:
        counts, workers = await queue.counts(), await queue.workers()
        if not as_json:
            write(counts_line(counts, workers))
        table = Table.for_stdout()
        records = [record async for record in _found(queue, wanted, after, limit + 1)]
        for record in records[:limit]:
            if as_json:
                write(to_json(record_json(record)).decode(), data=True)
            else:
                if record is records[0]:
                    write("")
                    write(table.head())
                write(table.row(record))
        if len(records) > limit > 0 and not as_json:
            write(f"more with --after {records[limit - 1].job.id}, or --limit N")

    _with_queue(url, ask)


async def _found(queue: Queue, wanted: Filter, after: str | None, limit: int) -> AsyncIterator[Record]:
    while limit > 0:
        records = await queue.find(wanted, limit=min(BATCH, limit), after=after)
        if not records:
            return
        for record in records:
            yield record
        limit, after = limit - len(records), records[-1].job.id


def show_job(job_id: str, url: str, *, as_json: bool) -> None:
    """Show one job."""

    async def ask(queue: Queue) -> None:
        record = await queue.get(job_id)
        if as_json:
            result = None if record.result is None else from_json(record.result)
            write(to_json({**record_json(record), "result": result}).decode(), data=True)
        else:
            write(details(record), lines=True)

    _with_queue(url, ask)


def retry_jobs(url: str, job_ids: Sequence[str], answers: Mapping[str, str], *, seal: Seal) -> None:
    """Queue dead letters again: these, or all whose calls are not in doubt."""

    async def ask(queue: Queue) -> None:
        ids = list(job_ids) or [
            record.job.id
            for record in await _all_dead(queue)
            if record.cause is None or record.cause.type != "CallInDoubt"
        ]
        for job_id in ids:
            record = await queue.get(job_id)
            doubt = record.cause is not None and record.cause.type == "CallInDoubt"
            if answers:
                await _check_answers(queue, job_id, answers, seal)
            steps = [answer_step(call_id, text) for call_id, text in answers.items()]
            if doubt and not steps:
                steps = [ALLOWED]
            sealed = [seal.close(step, job_id, index) for index, step in enumerate(steps, record.steps)]
            await queue.retry(job_id, steps=sealed)
        write(f"{plural(len(ids), 'job')} queued again")

    _with_queue(url, ask)


async def _check_answers(queue: Queue, job_id: str, answers: Mapping[str, str], seal: Seal) -> None:
    """A step that fits no call would spoil the job for good."""
    kept = await queue.steps(job_id)
    in_order(kept, job_id)
    steps = [seal.open(step.body, job_id, step.index) for step in kept]
    calls = [call.call_id for call in resumed(job_id, (), steps, store=False).story.open_calls]
    for call_id in answers:
        if call_id not in calls:
            known = f"those that do: {', '.join(calls)}" if calls else "none does"
            raise _Usage(f"job {job_id!r}: no call {call_id!r} waits for an answer ({known})")


def drop_jobs(url: str, job_ids: Sequence[str]) -> None:
    """Forget jobs: these, or all dead letters."""

    async def ask(queue: Queue) -> None:
        ids = list(job_ids) or [record.job.id for record in await _all_dead(queue)]
        for job_id in ids:
            if job_ids:
                await queue.get(job_id)  # a wrong id is the person's to know
            await queue.drop(job_id)
        write(f"{plural(len(ids), 'job')} dropped")

    _with_queue(url, ask)


async def _all_dead(queue: Queue) -> list[Record]:
    return [record async for record in _found(queue, Filter(state=State.DEAD), None, sys.maxsize)]


def show_result(
    job_id: str,
    url: str,
    *,
    wait: bool,
    follow: bool,
    timeout: float | None,
    as_json: bool,
    seal: Seal,
) -> int:
    """Print a result; return the exit status."""

    async def ask(queue: Queue) -> int:
        record = await queue.get(job_id)
        following = Following()
        if wait:
            with trio.move_on_after(float("inf") if timeout is None else timeout):
                if follow:
                    await _follow(queue, Follower(job_id, seal), following, as_json=as_json)
                record = await ended(queue, job_id)
        if record.state not in (State.DONE, State.DEAD):
            record = await queue.get(job_id)
        if record.state not in (State.DONE, State.DEAD):
            said = f"{record.state.value}, {plural(record.steps, 'step')} done"
            write(f"warmline: job {job_id!r} has no result yet: {said}", err=True)
            return NOT_YET
        try:
            value = outcome(record)
        except JobFailed as error:
            write(f"warmline: {error}", err=True)
            return DEAD
        output = value["output"]
        if output and output == following.shown and sys.stdout.isatty() and sys.stderr.isatty():
            return 0  # it stands there already
        # What a model has said: whole in a pipe, and nothing of it steers a terminal
        shown = to_json(value).decode() if as_json or not isinstance(output, str) else output
        write(shown, data=True)
        return 0

    return _with_queue(url, ask)


async def _follow(queue: Queue, follower: Follower, following: Following, *, as_json: bool) -> None:
    """Show the steps of a job as they are kept, and what is said meanwhile, until it has ended."""
    while news := await follower.news(queue):
        for step in news:
            _show(step, following, as_json=as_json)


def _show(step: Mapping[str, Any], following: Following, *, as_json: bool) -> None:
    if step["step"] == "draft":
        new = following.draft(step["text"])
        if new and as_json:
            write(to_json({"step": "draft", "new": new}).decode(), data=True)
        elif new:
            write(new, err=True, nl=False, data=True)
        return
    said = following.step(step)
    if as_json:
        write(to_json(step).decode(), data=True)
    else:
        write(said, err=True, nl=False, data=True)

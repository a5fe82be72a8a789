"""A fleet for programs that do not speak trio: plain scripts, and asyncio.

Theory of operation
    `run_fleet` starts a trio run of its own and returns when the fleet has ended. Within a running event loop that
    would block the loop, so it refuses and names `run_fleet_async`. That one may be awaited anywhere: under trio
    it joins the run that is there; under asyncio the fleet gets a trio run in a thread of its own. Cancelling the
    asyncio task cancels the fleet in its thread and waits until it is gone, so that nothing outlives the await.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import trio
from attrs import evolve, frozen

from pool.errors import SettingsError
from pool.settings import Endpoint, PoolSettings
from scheduler.agent import Agent
from scheduler.errors import FleetHalted
from scheduler.fleet.fleet import OnResult, check_listener
from scheduler.fleet.journal import Journal, Mode
from scheduler.fleet.launch import launch
from scheduler.fleet.report import FleetReport
from scheduler.fleet.results import TaskResult
from scheduler.fleet.tasks import TaskLike, as_tasks
from scheduler.fleet.verdict import principal
from scheduler.settings import SchedulerSettings

T = TypeVar("T")


def run_fleet(
    tasks: Iterable[TaskLike],
    agent: Agent,
    *,
    endpoint: Endpoint | None = None,
    connections: int | None = None,
    concurrency: int = 32,
    pool_settings: PoolSettings | None = None,
    settings: SchedulerSettings | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_result: OnResult | None = None,
) -> FleetReport:
    """Run `agent` on every task and return the report when all have ended.

    Args:
        tasks: texts, mappings as in a tasks file, or `Task`s.
        agent: what runs.
        endpoint: where; OpenAI, with the key in `OPENAI_API_KEY`, when None.
        connections: at most; the pool's default when None.
        concurrency: runs at a time.
        pool_settings: anything else about the pool.
        settings: how turns are recovered and admitted: tenants, budgets, limits.
        out: a file for the results, one line of JSON each. Without it, and without `on_result`, they are in the
            report's `results`; so a fleet too big for memory names one of the two.
        resume: append to `out` and skip the tasks that are completed in it.
        overwrite: replace `out`.
        on_result: called with each result when its run ends.

    Raises:
        RuntimeError: an event loop is running in this thread.
        SettingsError: there is no key, or a setting is out of range.
        TaskError: a task is malformed.
        OutputFileError: `out` cannot be written.
        FleetHalted: the endpoint refuses every run. What would have been in the report is in its `results`.
        KeyboardInterrupt: Ctrl-C. What is done is in `out`.
    """
    library = running_library()
    if library is not None:
        raise RuntimeError(f"run_fleet() would block the {library} loop; write: await run_fleet_async(...)")
    job = _Job(
        tasks=tasks,
        agent=agent,
        endpoint=endpoint,
        connections=connections,
        concurrency=concurrency,
        pool_settings=pool_settings,
        settings=settings,
        out=out,
        resume=resume,
        overwrite=overwrite,
        on_result=on_result,
    )
    try:
        return trio.run(job.run)
    except BaseExceptionGroup as group:
        raise principal(group) from None


async def run_fleet_async(
    tasks: Iterable[TaskLike],
    agent: Agent,
    *,
    endpoint: Endpoint | None = None,
    connections: int | None = None,
    concurrency: int = 32,
    pool_settings: PoolSettings | None = None,
    settings: SchedulerSettings | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_result: OnResult | None = None,
) -> FleetReport:
    """Do what `run_fleet` does, from within asyncio or trio. Cancelling it cancels the fleet, cleanly.

    Under asyncio the fleet lives in a thread of its own: `tasks` is iterated there and tools run there (an `async`
    tool under trio), while `on_result` is called in the loop.
    """
    check_listener(on_result)
    under_trio = running_library() == "trio"
    if on_result is not None and not under_trio:
        on_result = _in_loop(asyncio.get_running_loop(), on_result)
    job = _Job(
        tasks=tasks,
        agent=agent,
        endpoint=endpoint,
        connections=connections,
        concurrency=concurrency,
        pool_settings=pool_settings,
        settings=settings,
        out=out,
        resume=resume,
        overwrite=overwrite,
        on_result=on_result,
    )
    return await (job.run() if under_trio else in_thread(job.run))


@frozen(kw_only=True)
class _Job:
    """The arguments, and what they mean."""

    tasks: Iterable[TaskLike]
    agent: Agent
    endpoint: Endpoint | None
    connections: int | None
    concurrency: int
    pool_settings: PoolSettings | None
    settings: SchedulerSettings | None
    out: str | Path | None
    resume: bool
    overwrite: bool
    on_result: OnResult | None

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.agent, Agent):
            raise SettingsError("agent", f"({type(self.agent).__name__})", "must be an Agent(model=...)")
        check_listener(self.on_result)
        if self.resume and self.overwrite:
            raise SettingsError("resume", True, "excludes overwrite; choose one")
        if (self.resume or self.overwrite) and self.out is None:
            raise SettingsError("out", None, "resume and overwrite are about this file; name it")

    async def run(self) -> FleetReport:
        if self.out is None:
            return await self._launch(None)
        mode: Mode = "resume" if self.resume else "overwrite" if self.overwrite else "new"
        journal = Journal.open(str(self.out), mode)
        try:
            report = await self._launch(journal)
            await trio.to_thread.run_sync(journal.sync)
            return report
        finally:
            journal.close()

    async def _launch(self, journal: Journal | None) -> FleetReport:
        kept: list[TaskResult] = []
        finished = journal.finished if journal is not None else frozenset()
        skipped = 0

        def left() -> Iterable[TaskLike]:
            nonlocal skipped
            for task in as_tasks(self.tasks):
                if task.id in finished:
                    skipped += 1
                else:
                    yield task

        def keep(result: TaskResult) -> None:
            if journal is not None:
                journal.append(result)
            if self.on_result is not None:
                self.on_result(result)
            if journal is None and self.on_result is None:
                kept.append(result)

        pool_settings = self.pool_settings or PoolSettings()
        if self.connections is not None:
            pool_settings = pool_settings.with_(max_connections=self.connections)
        landed = await launch(
            left(),
            self.agent,
            self.endpoint or Endpoint.openai(),
            pool_settings=pool_settings,
            settings=self.settings,
            concurrency=self.concurrency,
            on_result=keep,
        )
        if isinstance(landed.fault, FleetHalted):
            landed.fault.results = tuple(kept)
        if landed.fault is not None:
            raise landed.fault
        runs = evolve(landed.report.runs, total=landed.report.runs.total + skipped, skipped=skipped)
        file = None if journal is None else journal.path
        return evolve(landed.report, runs=runs, results=tuple(kept), results_file=file)


def running_library() -> str | None:
    if trio.lowlevel.in_trio_run():
        return "trio"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return None
    return "asyncio"


def _in_loop(loop: asyncio.AbstractEventLoop, on_result: OnResult) -> OnResult:
    """Call back in the loop: in order, and each call before the await returns. What it raises goes to the loop."""

    def call(result: TaskResult) -> None:
        loop.call_soon_threadsafe(on_result, result)

    return call


async def in_thread(job: Callable[[], Awaitable[T]]) -> T:
    """Run a trio job in a thread and await it from asyncio."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    leash = _Leash()

    async def cancellable() -> T:
        with leash.scope:
            leash.attach()
            return await job()
        raise _Cancelled

    def thread() -> None:
        try:
            value = trio.run(cancellable)
        except (Exception, BaseExceptionGroup, KeyboardInterrupt, SystemExit) as error:
            loop.call_soon_threadsafe(done.set_exception, principal(error))
        else:
            loop.call_soon_threadsafe(done.set_result, value)

    context = contextvars.copy_context()
    runner = threading.Thread(target=context.run, args=(thread,), name="warmline fleet", daemon=True)
    runner.start()
    cancelled = False
    while not done.done():
        # However often the task is cancelled: the thread must not be left behind, and hurries after the first time.
        interrupted = True
        with suppress(asyncio.CancelledError):
            await asyncio.wait([done])
            interrupted = False
        if interrupted:
            cancelled = True
            leash.pull()
    runner.join()  # it has nothing left to do but to return
    if cancelled:
        done.exception()  # looked at, or asyncio complains that nobody did
        raise asyncio.CancelledError
    return done.result()


class _Cancelled(Exception):
    """The trio run was cancelled from outside, and the asyncio side knows why."""


class _Leash:
    """Carries a cancellation from asyncio's thread into the trio run, whether or not that has begun."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._pulled = False

    def attach(self) -> None:
        """The trio run has begun. Called in it."""
        self._token = trio.lowlevel.current_trio_token()
        if self._pulled:
            self.scope.cancel()

    def pull(self) -> None:
        """Cancel the trio run. Called in the other thread."""
        self._pulled = True
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self.scope.cancel)

"""A fleet: many runs of one agent, so many at a time, one result for each.

Theory of operation
    `concurrency` workers pull tasks from one iterator; a task is read when a worker is free for it, so the
    number of tasks costs nothing. A run that fails becomes a failed result and nobody else notices.

    Three things end a fleet early. `stop` starts no more tasks and lets the running ones finish. `cancel` ends
    those too, each with a `cancelled` result. And a fault that is not one task's own: the endpoint refuses
    everybody (`FleetHalted`, the fleet stops and what runs may finish), or a result cannot be handed over, or the
    tasks cannot be read (the fleet is cancelled). A fault is kept aside and raised when all workers have left, as
    itself and never inside an exception group.

    The phases only go forward: READY -> RUNNING -> STOPPING -> CANCELLING -> DONE, and any may be skipped.
"""

from __future__ import annotations

import enum
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import trio
from attrs import define, field, frozen

from pool.errors import SettingsError
from scheduler.agent import Agent
from scheduler.errors import FleetHalted
from scheduler.fleet.results import TaskResult
from scheduler.fleet.tasks import Task, TaskLike, as_tasks
from scheduler.fleet.verdict import endpoint_is_at_fault, principal
from scheduler.run import Run
from scheduler.scheduler import Scheduler
from scheduler.turns import Usage

OnResult = Callable[[TaskResult], None]


def check_listener(on_result: object) -> None:
    """Raise `SettingsError` when this cannot be given results."""
    if on_result is not None and not callable(on_result):
        raise SettingsError("on_result", on_result, "must be a function that takes one TaskResult")
    if inspect.iscoroutinefunction(on_result):
        raise SettingsError("on_result", on_result, "must be a plain function: it is called, and not awaited")


class Phase(enum.IntEnum):
    """Where a fleet is. It only goes forward."""

    READY = 0
    RUNNING = 1
    STOPPING = 2
    CANCELLING = 3
    DONE = 4


@frozen(kw_only=True)
class FleetCounts:
    """One moment of a fleet.

    `turns` are finished ones, also of runs that go on, and `deltas` those of them that did not resend their
    transcript; the tool calls and `usage` are those of runs that have ended.
    """

    running: int
    completed: int
    failed: int
    cancelled: int
    turns: int
    deltas: int
    tools_executed: int
    tools_failed: int
    usage: Usage

    @property
    def ended(self) -> int:
        """Runs with a result."""
        return self.completed + self.failed + self.cancelled


@define(eq=False)
class Fleet:
    """Runs of `agent` over `scheduler`, at most `concurrency` at a time. A fleet runs once."""

    agent: Agent
    scheduler: Scheduler
    concurrency: int = field(default=32, kw_only=True)
    _phase: Phase = field(default=Phase.READY, init=False)
    _running: dict[str, Run] = field(factory=dict, init=False)
    _outcomes: Counter[str] = field(factory=Counter, init=False)
    _turns: Counter[str] = field(factory=Counter, init=False)  # of ended runs, by kind of placement
    _tools: Counter[str] = field(factory=Counter, init=False)
    _usage: Usage = field(factory=Usage, init=False)
    _fault: Exception | None = field(default=None, init=False)
    _scope: trio.CancelScope | None = field(default=None, init=False)

    @concurrency.validator
    def _check_concurrency(self, _attribute: object, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingsError("concurrency", value, "must be a whole number of at least 1")

    async def run(self, tasks: Iterable[TaskLike], *, on_result: OnResult | None = None) -> FleetCounts:
        """Run all tasks. `on_result` gets each result when its run ends: in that order, so not the tasks' own.

        Cancelled from outside, it still hands over a `cancelled` result for each run that had started.

        Raises:
            SettingsError: `on_result` cannot be called with a result.
            FleetHalted: the endpoint refuses every run; those that met it have no result.
            TaskError: a task is malformed. Earlier tasks may have run.
        """
        if self._scope is not None:
            raise RuntimeError("a Fleet runs once; make another one")
        check_listener(on_result)
        source = as_tasks(tasks)
        self._advance(Phase.RUNNING)
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                for _ in range(self.concurrency):
                    nursery.start_soon(self._work, source, on_result)
        finally:
            self._advance(Phase.DONE)
        if self._fault is not None:
            raise self._fault
        return self.counts()

    @property
    def phase(self) -> Phase:
        """Where the fleet is."""
        return self._phase

    def stop(self) -> None:
        """Start no more tasks; what runs may finish."""
        self._advance(Phase.STOPPING)

    def cancel(self) -> None:
        """End the running tasks too, each with a `cancelled` result."""
        self._advance(Phase.CANCELLING)
        if self._scope is not None:
            self._scope.cancel()

    def counts(self) -> FleetCounts:
        """Return what is going on now. Cheap: nothing is summarised."""
        turns = self._turns + Counter(turn.kind for run in self._running.values() for turn in run.placements)
        return FleetCounts(
            running=len(self._running),
            completed=self._outcomes["completed"],
            failed=self._outcomes["failed"],
            cancelled=self._outcomes["cancelled"],
            turns=turns.total(),
            deltas=turns["delta"],
            tools_executed=self._tools["executed"],
            tools_failed=self._tools["failed"],
            usage=self._usage,
        )

    def _advance(self, phase: Phase) -> None:
        self._phase = max(self._phase, phase)

    async def _work(self, source: Iterator[Task], on_result: OnResult | None) -> None:
        await trio.lowlevel.checkpoint()
        while self._phase is Phase.RUNNING:
            try:
                task = next(source, None)
            except Exception as error:  # the caller's iterator, or a malformed task
                self._break_off(error)
                return
            if task is None:
                return
            run = self._running[task.id] = Run()
            try:
                await self._attempt(task, run, on_result)
            finally:
                del self._running[task.id]
                self._account(run)

    async def _attempt(self, task: Task, run: Run, on_result: OnResult | None) -> None:
        conversation = self.scheduler.conversation(name=task.id, store=self.agent.store)
        try:
            result = await self.agent.run(
                self.scheduler,
                task.input,
                conversation=conversation,
                metadata=task.metadata,
                run=run,
                tenant=task.tenant,
                priority=task.priority,
                deadline=task.deadline,
            )
        except Exception as error:
            cause = principal(error)
            assert isinstance(cause, Exception)
            if endpoint_is_at_fault(cause):
                self._halt(cause)
            else:
                self._hand_over(TaskResult.unfinished(task.id, run, cause), on_result)
        except (trio.Cancelled, BaseExceptionGroup):
            self._hand_over(TaskResult.unfinished(task.id, run, None), on_result)
            raise
        else:
            self._hand_over(TaskResult.finished(task.id, result), on_result)
        finally:
            conversation.close()

    def _hand_over(self, result: TaskResult, on_result: OnResult | None) -> None:
        """Pass a result on and count its outcome. Sync, so that no cancellation can come in between and lose it."""
        if on_result is not None:
            try:
                on_result(result)
            except Exception as error:  # it cannot be kept, so nothing that follows could be
                self._break_off(error)
                return
        self._outcomes[result.outcome] += 1

    def _account(self, run: Run) -> None:
        """Count what a run has done, whatever came of it."""
        self._turns.update(turn.kind for turn in run.placements)
        self._tools.update(executed=run.tools_executed, failed=run.tools_failed)
        self._usage += run.usage

    def _halt(self, cause: Exception) -> None:
        """The endpoint refuses everybody: no use in starting more."""
        if self._fault is None:
            self._fault = FleetHalted(str(cause))
            self._fault.__cause__ = cause
        self.stop()

    def _break_off(self, error: Exception) -> None:
        if self._fault is None:
            self._fault = error
        self.cancel()

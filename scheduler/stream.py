"""A run whose caller reads its events while it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from attrs import define, field

from pool.errors import SettingsError
from scheduler.conversation import Conversation
from scheduler.run import Input, Run, RunResult, run_agent
from scheduler.scheduler import Scheduler
from scheduler.tools.events import RunEvent

if TYPE_CHECKING:
    from scheduler.agent import Agent


@define(eq=False)
class RunStream:
    """The events of a run, in order: iterate over it once. A failed run raises its error where the events end.

    The server's events come as they are, `Restarted` when a turn begins afresh (drop what it had said before), and
    `ToolStarted` / `ToolFinished` around each call. `run` says at any time what has been done.
    """

    run: Run
    _events: trio.MemoryReceiveChannel[RunEvent]
    _result: RunResult | None = field(default=None, init=False)
    _error: Exception | None = field(default=None, init=False)

    @property
    def result(self) -> RunResult:
        """The finished run's result. Before the events have been read to their end there is none: RuntimeError."""
        if self._result is None:
            raise RuntimeError(
                "the run has not finished: read its events to the end first, or await finish()"
            )
        return self._result

    async def finish(self) -> RunResult:
        """Skip the remaining events and return the result, or raise the run's error."""
        async for _ in self:
            pass
        return self.result

    def __aiter__(self) -> AsyncIterator[RunEvent]:
        return self

    async def __anext__(self) -> RunEvent:
        try:
            return await self._events.receive()
        except trio.EndOfChannel:
            pass
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


@asynccontextmanager
async def open_stream(
    scheduler: Scheduler,
    agent: Agent,
    input: Input,
    *,
    conversation: Conversation | None = None,
    metadata: Mapping[str, str] | None = None,
    run: Run | None = None,
    tenant: str | None = None,
    priority: float | None = None,
    deadline: float | None = None,
    buffer: int = 64,
) -> AsyncIterator[RunStream]:
    """Run `agent` in a task of its own while the body reads its events.

    `buffer` events wait at most; then the run waits for its reader, and a reader so slow that the lane's own
    high watermark is passed fails the turn. Leaving the body early cancels the run.

    There is a nursery around the body, because the run needs a task of its own. It wraps no error: what the body
    raises (`Exception`) comes out as it is, and the run's error is raised from the iteration, not here. Leave it
    in the task that entered it, and don't yield out of it, as with any cancel scope.
    """
    if buffer < 0:
        raise SettingsError("buffer", buffer, "must be a whole number of at least 0")
    send, receive = trio.open_memory_channel[RunEvent](buffer)
    stream = RunStream(run=Run() if run is None else run, events=receive)

    async def produce() -> None:
        async with send:
            try:
                stream._result = await run_agent(
                    scheduler,
                    agent,
                    input,
                    conversation=conversation,
                    metadata=metadata,
                    on_event=send.send,
                    run=stream.run,
                    tenant=tenant,
                    priority=priority,
                    deadline=deadline,
                )
            except Exception as exc:
                stream._error = exc

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        try:
            yield stream
        except Exception as exc:
            # Carried past the nursery by hand, which would put it in a group.
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure

"""A worker on the emulator and a queue in memory, all on trio's clock: the stage for tests of the shell."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from attrs import define, evolve, field

from pool.emulator import EmulatorSettings, context_digest
from pool.settings import PoolSettings
from pool.wire.codec import from_json
from scheduler.agent import Agent
from scheduler.tools import ToolContext, tool
from scheduler.worker.clock import MachineClock
from scheduler.worker.errors import QueueUnavailable
from scheduler.worker.job import Job
from scheduler.worker.queue import QueueSettings, Record, State, Step
from scheduler.worker.seal import Seal
from scheduler.worker.settings import WorkerSettings
from scheduler.worker.sqlite import SqliteQueue
from scheduler.worker.sqlite_schema import prepare
from scheduler.worker.sqlite_store import Store
from scheduler.worker.steps import resumed
from scheduler.worker.worker import Worker
from tests.support.world import World, world

R = TypeVar("R")
LEASE = 9.0


@define(eq=False)
class MemoryQueue(SqliteQueue):
    """The SQLite engine without its thread, which trio's jumping clock would not wait for."""

    down: bool = field(default=False, init=False)
    calls: list[str] = field(factory=list, init=False)

    async def _in_thread(self, call: Callable[[], R]) -> R:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise QueueUnavailable(self.name, "it is down")
        return call()


def memory_queue(settings: QueueSettings | None = None) -> MemoryQueue:
    """Return an empty queue whose clock is trio's."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    clock = MachineClock(wall=lambda: 1e9 + trio.current_time(), steady=trio.current_time, boot="first")
    prepare(connection, "memory", clock.boot)
    settings = settings or QueueSettings(lease=LEASE)
    return MemoryQueue("memory", settings, Store(connection, settings, clock))


@define(eq=False)
class Desk:
    """Workers beside one queue, each over the same scheduler."""

    world: World
    queue: MemoryQueue
    nursery: trio.Nursery
    agent: Agent
    ran: list[str]  # call ids, as the tool ran for them
    workers: list[Worker] = field(factory=list)

    def hire(
        self, *, seal: Seal | None = None, agents: dict[str, Agent] | None = None, **settings: Any
    ) -> Worker:
        """Start a worker."""
        worker = Worker(
            self.queue,
            self.world.scheduler,
            agents or {"agent": self.agent},
            WorkerSettings(**settings),
            seal or Seal(),
        )
        worker.info = evolve(worker.info, id=f"w{len(self.workers) + 1}")
        self.workers.append(worker)
        self.nursery.start_soon(worker.run)
        return worker

    async def put(self, *jobs: Job) -> None:
        """Enqueue."""
        await self.queue.put(jobs)

    async def ended(self, *ids: str, within: float = 600.0) -> list[Record]:
        """Wait until the jobs are done or dead."""
        with trio.fail_after(within):
            while True:
                records = [await self.queue.get(id_) for id_ in ids]
                if all(record.state in (State.DONE, State.DEAD) for record in records):
                    return records
                await trio.sleep(0.1)

    async def result(self, id: str) -> Any:  # noqa: A002
        """Return the result of a job that is done, and check its transcript against what the server saw."""
        (record,) = await self.ended(id)
        assert record.state is State.DONE, record.cause
        assert record.result is not None
        await self.check(record)
        return from_json(record.result)

    async def check(self, record: Record) -> None:
        """The model's last answer ends with the digest of what it was shown: that, and the transcript, agree."""
        before: list[bytes] = []
        own = plain(await self.queue.steps(record.job.id))
        if record.job.conversation is None:
            check_digest(record.job.id, before, own)


def check_digest(job_id: str, before: Sequence[bytes], own: Sequence[bytes]) -> None:
    """Compare the transcript that the steps add up to with what the server says it was shown for the last answer."""
    state = resumed(job_id, before, own, store=False)
    items = [from_json(item.text) for item in state.past.items]  # type: ignore[union-attr]  # all are encoded
    turn, _ = state.story.turns[-1]
    shown = items[: len(items) - len(turn.output)]
    assert turn.text.endswith(f"context:{context_digest(shown)}"), job_id


def plain(steps: Sequence[Step]) -> list[bytes]:
    """Open steps that are not encrypted."""
    return [Seal().open(step.body, step.job_id, step.index) for step in steps]


def steps_text(steps: Sequence[bytes]) -> list[str]:
    """Name the steps."""
    return [from_json(step)["step"] for step in steps]


@asynccontextmanager
async def desk(
    *,
    server: EmulatorSettings | None = None,
    settings: QueueSettings | None = None,
    tool_seconds: float = 1.0,
    repeatable: bool = True,
    **agent: Any,
) -> AsyncIterator[Desk]:
    """Open it. The agent's one tool takes `tool_seconds` and says what it was asked for."""
    ran: list[str] = []

    @tool(repeatable=repeatable)
    async def look(at: str, context: ToolContext) -> str:
        """Look at something."""
        ran.append(context.call_id)
        await trio.sleep(tool_seconds)
        return f"saw {at}"

    pool = PoolSettings(min_idle=0, max_connections=16)
    async with world(server=server, pool=pool) as stage, trio.open_nursery() as nursery:
        built = Agent(model="emulated", name="agent", tools=[look], **agent)
        yield Desk(stage, memory_queue(settings), nursery, built, ran)
        nursery.cancel_scope.cancel()


def job(id: str, script: str = "calls=2", **fields: Any) -> Job:  # noqa: A002
    """Return a job that steers the scripted model."""
    return Job(**{"id": id, "input": f"do {id}", "metadata": {"emulator": script}, **fields})

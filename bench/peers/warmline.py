"""(a) warmline with all that it does: an `Agent` with typed tools, the run loop, conversations, the pool."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from attrs import evolve

from bench.job import MODEL, PROMPT, Job, Lap, Play, measure, read_job, report
from bench.tools import TOOLS
from pool.pool import Pool
from pool.settings import Endpoint, Lanes, PoolSettings
from scheduler.agent import Agent
from scheduler.scheduler import open_scheduler
from scheduler.stats import SchedulerStats


def slowed(tool: Callable[..., Awaitable[str]], seconds: float) -> Callable[..., Awaitable[str]]:
    """Return the tool as one that takes its time."""

    @functools.wraps(tool)
    async def slow(**arguments: object) -> str:
        await trio.sleep(seconds)
        return await tool(**arguments)

    return slow


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Play]:
    """Open a scheduler with default settings, but for the number of connections."""
    tools = tuple(TOOLS.values())
    agent = Agent(
        model=MODEL,
        instructions=job.instructions,
        tools=tuple(slowed(tool, job.tool_seconds) for tool in tools) if job.tool_seconds else tools,
        max_turns=max(50, job.turns),
    )
    if list(agent.request().tools) != job.tools:
        raise RuntimeError("the agent's tools are not those of the job")
    endpoint = Endpoint.emulator(job.url, lanes=Lanes.multi() if job.lanes else Lanes.single())
    settings = PoolSettings(max_connections=max(job.connections, 1 if job.sockets else 8))
    if (
        job.sockets
    ):  # warm, as those of the other peers are after their first runs: not paced, the server being ours
        warm = job.sockets * endpoint.lanes.count
        settings = settings.with_(min_idle=warm, dial_rate=1000.0, dial_burst=job.sockets)
    async with open_scheduler(endpoint, pool_settings=settings) as scheduler:
        while scheduler.pool.stats().open < (job.sockets or 0):  # noqa: ASYNC110  # a pool tells nobody that it is warm
            await trio.sleep(0.05)

        async def run(agent: Agent, job: Job, lap: Lap) -> None:
            started = time.perf_counter()
            result = await agent.run(scheduler, PROMPT)
            lap.runs.append(time.perf_counter() - started)
            lap.turns += [seconds for _, seconds in result.timings]
            job.check(result.turns, result.text)

        async def play(job: Job, lap: Lap) -> None:
            playing, before = evolve(agent, options={"metadata": job.metadata}), scheduler.stats()
            async with trio.open_nursery() as rotating:
                if job.rotate is not None:
                    rotating.start_soon(rotate, scheduler.pool, job.rotate)
                async with trio.open_nursery() as nursery:
                    for _ in range(job.runs):
                        nursery.start_soon(run, playing, job, lap)
                rotating.cancel_scope.cancel()
            note(lap, scheduler.stats() - before)

        yield play


async def rotate(pool: Pool, every: float) -> None:
    """Replace all connections again and again."""
    while True:
        await trio.sleep(every)
        pool.rotate()


def note(lap: Lap, stats: SchedulerStats) -> None:
    """Say how the pool saw the lap."""
    pool, turns = stats.pool, sum(stats.placements.values())
    lap.notes = {
        "wait_p50": pool.wait.p50,
        "wait_p99": pool.wait.p99,
        "hot": stats.placements.get("hot", 0) / max(1, turns),
        "rotated": float(pool.rotated),
        "lost": float(pool.lost),
    }


if __name__ == "__main__":
    report(trio.run(measure, read_job(), opened))

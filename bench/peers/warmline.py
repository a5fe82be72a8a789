"""(a) warmline with all that it does: an `Agent` with typed tools, the run loop, conversations, the pool."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import evolve

from bench.job import MODEL, PROMPT, Job, Lap, Play, measure, read_job, report
from bench.tools import TOOLS
from pool.settings import Endpoint, Lanes, PoolSettings
from scheduler.agent import Agent
from scheduler.scheduler import open_scheduler


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Play]:
    """Open a scheduler with default settings, but for the number of connections."""
    agent = Agent(
        model=MODEL,
        instructions=job.instructions,
        tools=tuple(TOOLS.values()),
        max_turns=max(50, job.turns),
    )
    if list(agent.request().tools) != job.tools:
        raise RuntimeError("the agent's tools are not those of the job")
    endpoint = Endpoint.emulator(job.url, lanes=Lanes.multi() if job.lanes else Lanes.single())
    settings = PoolSettings(max_connections=max(job.connections, 1 if job.sockets else 8))
    async with open_scheduler(endpoint, pool_settings=settings) as scheduler:

        async def run(agent: Agent, job: Job, lap: Lap) -> None:
            started = time.perf_counter()
            result = await agent.run(scheduler, PROMPT)
            lap.runs.append(time.perf_counter() - started)
            lap.turns += [seconds for _, seconds in result.timings]
            job.check(result.turns, result.text)

        async def play(job: Job, lap: Lap) -> None:
            playing = evolve(agent, options={"metadata": job.metadata})
            async with trio.open_nursery() as nursery:
                for _ in range(job.runs):
                    nursery.start_soon(run, playing, job, lap)

        yield play


if __name__ == "__main__":
    report(trio.run(measure, read_job(), opened))

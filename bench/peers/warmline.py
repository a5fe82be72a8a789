"""(a) warmline with all that it does: an `Agent` with typed tools, the run loop, conversations, the pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from bench.job import MODEL, PROMPT, Job, Play, measure, read_job, report
from bench.tools import TOOLS
from pool.settings import Endpoint
from scheduler.agent import Agent
from scheduler.scheduler import open_scheduler


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Play]:
    """Open a scheduler with default settings."""
    agent = Agent(
        model=MODEL,
        instructions=job.instructions,
        tools=tuple(TOOLS.values()),
        options={"metadata": job.metadata},
    )
    if list(agent.request().tools) != job.tools:
        raise RuntimeError("the agent's tools are not those of the job")
    async with open_scheduler(Endpoint.emulator(job.url)) as scheduler:

        async def run() -> None:
            result = await agent.run(scheduler, PROMPT)
            job.check(result.turns, result.text)

        async def play() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(job.runs):
                    nursery.start_soon(run)

        yield play


if __name__ == "__main__":
    report(trio.run(measure, read_job(), opened))

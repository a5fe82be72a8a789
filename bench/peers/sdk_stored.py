"""(d') The official SDK over HTTP streaming, with responses stored: deltas by `previous_response_id`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from openai.types.responses import Response

from bench.job import MODEL, PROMPT, Job, Lap, Play, measure, read_job, report
from bench.tools import TOOLS


async def turn(client: AsyncOpenAI, job: Job, new: list[Any], parent: str | None) -> Response:
    """Send what is new and read one response to its end."""
    tools: Any = job.tools
    stream = await client.responses.create(
        model=MODEL,
        instructions=job.instructions,
        tools=tools,
        metadata=job.metadata,
        store=True,
        previous_response_id=parent,
        input=new,
        stream=True,
    )
    async for event in stream:
        if event.type == "response.completed":
            return event.response
        if event.type in ("response.failed", "response.incomplete", "error"):
            raise RuntimeError(event)
    raise RuntimeError("the stream ended without a response")


async def run(client: AsyncOpenAI, job: Job, lap: Lap) -> None:
    """Run one tool loop."""
    parent: str | None = None
    new: list[Any] = [{"type": "message", "role": "user", "content": PROMPT}]
    turns, text, begun = 0, "", time.perf_counter()
    while new:
        started = time.perf_counter()
        response = await turn(client, job, new, parent)
        turns, text, parent = turns + 1, response.output_text, response.id
        lap.turns.append(time.perf_counter() - started)
        new = [
            {
                "type": "function_call_output",
                "call_id": item.call_id,
                "output": await TOOLS[item.name](**json.loads(item.arguments)),
            }
            for item in response.output
            if item.type == "function_call"
        ]
    lap.runs.append(time.perf_counter() - begun)
    job.check(turns, text)


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Play]:
    """Open a client; it keeps its HTTP connections alive between turns."""
    async with AsyncOpenAI(api_key="none", base_url=job.url) as client:

        async def play(job: Job, lap: Lap) -> None:
            await asyncio.gather(*(run(client, job, lap) for _ in range(job.runs)))

        yield play


if __name__ == "__main__":
    report(asyncio.run(measure(read_job(), opened)))

"""(c) The official SDK over WebSocket: one connection a run, deltas with `previous_response_id`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from openai.resources.responses.responses import AsyncResponsesConnection
from openai.types.responses import Response

from bench.job import MODEL, PROMPT, Job, Lap, Play, measure, read_job, report
from bench.tools import TOOLS


async def turn(connection: AsyncResponsesConnection) -> Response:
    """Read one response to its end."""
    async for event in connection:
        if event.type == "response.completed":
            return event.response
        if event.type in ("response.failed", "response.incomplete", "error"):
            raise RuntimeError(event)
    raise RuntimeError("the connection was closed")


async def run(job: Job, connection: AsyncResponsesConnection, lap: Lap) -> None:
    """Run one tool loop on one connection."""
    tools: Any = job.tools
    parent: str | None = None
    new: list[Any] = [{"type": "message", "role": "user", "content": PROMPT}]
    turns, text, begun = 0, "", time.perf_counter()
    while new:
        started = time.perf_counter()
        await connection.response.create(
            model=MODEL,
            instructions=job.instructions,
            tools=tools,
            metadata=job.metadata,
            store=False,
            include=["reasoning.encrypted_content"],
            previous_response_id=parent,
            input=new,
        )
        response = await turn(connection)
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
    """Open one connection for each run."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncOpenAI(api_key="none", base_url=job.url))
        connections = [await stack.enter_async_context(client.responses.connect()) for _ in range(job.runs)]

        async def play(job: Job, lap: Lap) -> None:
            await asyncio.gather(*(run(job, connection, lap) for connection in connections))

        yield play


if __name__ == "__main__":
    report(asyncio.run(measure(read_job(), opened)))

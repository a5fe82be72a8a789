"""(d) The official SDK over HTTP streaming, as it is ordinarily used: each turn resends the whole transcript."""

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


async def turn(client: AsyncOpenAI, job: Job, transcript: list[Any]) -> Response:
    """Send the transcript and read one response to its end."""
    tools: Any = job.tools
    stream = await client.responses.create(
        model=MODEL,
        instructions=job.instructions,
        tools=tools,
        metadata=job.metadata,
        store=False,
        include=["reasoning.encrypted_content"],
        input=transcript,
        stream=True,
    )
    response: Response | None = None
    async for event in stream:
        if event.type == "response.completed":
            response = event.response
        elif event.type in ("response.failed", "response.incomplete", "error"):
            raise RuntimeError(event)
    if response is None:
        raise RuntimeError("the stream ended without a response")
    return response


async def run(client: AsyncOpenAI, job: Job, lap: Lap) -> None:
    """Run one tool loop."""
    transcript: list[Any] = [{"type": "message", "role": "user", "content": PROMPT}]
    turns, text, calls, begun = 0, "", True, time.perf_counter()
    while calls:
        started = time.perf_counter()
        response = await turn(client, job, transcript)
        turns, text = turns + 1, response.output_text
        lap.turns.append(time.perf_counter() - started)
        transcript += response.output
        calls = False
        for item in response.output:
            if item.type == "function_call":
                calls = True
                output = await TOOLS[item.name](**json.loads(item.arguments))
                transcript.append({"type": "function_call_output", "call_id": item.call_id, "output": output})
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

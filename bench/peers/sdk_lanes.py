"""(e) The official SDK's WebSocket session: many runs on the lanes of one connection, deltas on each lane."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketLane,
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketLimits,
)

from bench.job import LANES, MODEL, PROMPT, Job, Lap, Play, measure, read_job, report
from bench.tools import TOOLS

LIMITS = ResponsesWebSocketLimits(
    max_lanes=LANES + 1,
    max_events_per_lane=4096,
    max_events=65536,
    max_bytes_per_lane=1 << 24,
    max_bytes=1 << 28,
)


async def run(job: Job, lane: AsyncResponsesWebSocketLane, lap: Lap) -> None:
    """Run one tool loop on one lane."""
    parent: str | None = None
    new: list[Any] = [{"type": "message", "role": "user", "content": PROMPT}]
    turns, text, begun = 0, "", time.perf_counter()
    while new:
        started = time.perf_counter()
        create: Any = {
            "type": "response.create",
            "model": MODEL,
            "instructions": job.instructions,
            "tools": job.tools,
            "metadata": job.metadata,
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "previous_response_id": parent,
            "input": new,
        }
        await lane.send(create)
        response = await lane.get_final_response()
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
    """Open one connection for every sixteen runs, and a lane for each run."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncOpenAI(api_key="none", base_url=job.url))
        lanes: list[AsyncResponsesWebSocketLane] = []
        while len(lanes) < job.runs:
            connection = await stack.enter_async_context(client.responses.connect())
            session = await stack.enter_async_context(
                AsyncResponsesWebSocketSession(connection, limits=LIMITS)
            )
            lanes += [session.lane(f"lane-{index}") for index in range(min(LANES, job.runs - len(lanes)))]

        async def play(job: Job, lap: Lap) -> None:
            await asyncio.gather(*(run(job, lane, lap) for lane in lanes))

        yield play


if __name__ == "__main__":
    report(asyncio.run(measure(read_job(), opened)))

"""(b) The floor: a bare loop over trio-websocket and msgspec, one socket a run, without a care for failures."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from bench.job import INCLUDE, MODEL, PROMPT, Job, Lap, Play, measure, read_job, report
from bench.tools import TOOLS

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


async def run(job: Job, socket: WebSocketConnection, lap: Lap) -> None:
    """Run one tool loop on one socket."""
    parent: str | None = None
    new: list[dict[str, Any]] = [{"type": "message", "role": "user", "content": PROMPT}]
    transcript: list[dict[str, Any]] = []
    turns, begun = 0, time.perf_counter()
    while new:
        started = time.perf_counter()
        request = {
            "type": "response.create",
            "model": MODEL,
            "instructions": job.instructions,
            "tools": job.tools,
            "metadata": job.metadata,
            "store": False,
            "include": INCLUDE,
            "previous_response_id": parent,
            "input": new,
        }
        await socket.send_message(encode(request).decode())
        output: list[dict[str, Any]] = []
        while True:
            event = decode(await socket.get_message())
            kind = event["type"]
            if kind == "response.output_item.done":
                output.append(event["item"])
            elif kind == "response.completed":
                parent = event["response"]["id"]
                break
            elif kind in ("response.failed", "response.incomplete", "error"):
                raise RuntimeError(event)
        turns += 1
        lap.turns.append(time.perf_counter() - started)
        transcript += [*new, *output]
        new = [
            {
                "type": "function_call_output",
                "call_id": item["call_id"],
                "output": await TOOLS[item["name"]](**decode(item["arguments"])),
            }
            for item in output
            if item["type"] == "function_call"
        ]
    lap.runs.append(time.perf_counter() - begun)
    job.check(turns, transcript[-1]["content"][0]["text"])


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Play]:
    """Open one socket for each run."""
    url = "ws" + job.url.removeprefix("http") + "/responses"
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(open_websocket_url(url)) for _ in range(job.runs)]

        async def play(job: Job, lap: Lap) -> None:
            async with trio.open_nursery() as nursery:
                for socket in sockets:
                    nursery.start_soon(run, job, socket, lap)

        yield play


if __name__ == "__main__":
    report(trio.run(measure, read_job(), opened))

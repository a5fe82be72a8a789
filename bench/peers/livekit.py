"""(g) livekit-agents' `ConnectionPool`, driving aiohttp sockets as its Responses plugin does.

Any free socket serves any turn, so the plugin leaves the responses stored and continues by `previous_response_id`:
a turn on another socket than the last one has to be loaded by the server.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import ClientWebSocketResponse as Socket
from livekit.agents.utils import ConnectionPool

from bench.job import MODEL, PROMPT, Job, Lap, Play, measure, read_job, report
from bench.tools import TOOLS

HEARTBEAT = 30.0  # s, as the plugin has it
TERMINAL = ("response.completed", "response.failed", "response.incomplete", "error")


async def turn(pool: ConnectionPool[Socket], create: dict[str, Any]) -> dict[str, Any]:
    """Take a socket, send, and read one response to its end."""
    socket = await pool.get(timeout=10.0)
    completed = False
    try:
        await socket.send_str(json.dumps(create))
        while True:
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise RuntimeError(message)
            event: dict[str, Any] = json.loads(message.data)
            if event["type"] in TERMINAL:
                completed = True
                break
    finally:
        if completed:
            pool.put(socket)
        else:
            pool.remove(socket)
    if event["type"] != "response.completed":
        raise RuntimeError(event)
    response: dict[str, Any] = event["response"]
    return response


async def run(job: Job, pool: ConnectionPool[Socket], lap: Lap) -> None:
    """Run one tool loop."""
    parent: str | None = None
    new: list[dict[str, Any]] = [{"type": "message", "role": "user", "content": PROMPT}]
    turns, text, begun = 0, "", time.perf_counter()
    while new:
        started = time.perf_counter()
        create = {
            "type": "response.create",
            "model": MODEL,
            "instructions": job.instructions,
            "tools": job.tools,
            "metadata": job.metadata,
            "input": new,
        }
        if parent is not None:
            create["previous_response_id"] = parent
        response = await turn(pool, create)
        turns, parent = turns + 1, response["id"]
        lap.turns.append(time.perf_counter() - started)
        new = [
            {
                "type": "function_call_output",
                "call_id": item["call_id"],
                "output": await TOOLS[item["name"]](**json.loads(item["arguments"])),
            }
            for item in response["output"]
            if item["type"] == "function_call"
        ]
        if not new:
            text = response["output"][-1]["content"][0]["text"]
    lap.runs.append(time.perf_counter() - begun)
    job.check(turns, text)


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Play]:
    """Open an empty pool: it dials when no socket is free, one dial at a time, and knows no maximum."""
    url = "ws" + job.url.removeprefix("http") + "/responses"
    # No limit: at its plugin's own of 50 a host, more than 50 runs at once end in time-outs of the pool.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def connect(timeout: float) -> Socket:  # noqa: ASYNC109  # as the pool calls it
            return await asyncio.wait_for(
                session.ws_connect(url, heartbeat=HEARTBEAT, max_msg_size=0), timeout
            )

        async def close(socket: Socket) -> None:
            await socket.close()

        pool = ConnectionPool[Socket](connect_cb=connect, close_cb=close, max_session_duration=3600)

        async def play(job: Job, lap: Lap) -> None:
            await asyncio.gather(*(run(job, pool, lap) for _ in range(job.runs)))

        yield play
        await pool.aclose()


if __name__ == "__main__":
    report(asyncio.run(measure(read_job(), opened)))

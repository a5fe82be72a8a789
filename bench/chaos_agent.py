"""The agent of the chaos: its tool writes down when it begins and ends, in a file that outlives every process."""

from __future__ import annotations

import os
import time

import trio

from scheduler.agent import Agent
from scheduler.tools import ToolContext, tool

LOG = os.environ.get("WARMLINE_CHAOS_LOG", os.devnull)
TOOL_SECONDS = float(os.environ.get("WARMLINE_CHAOS_TOOL_SECONDS", "0.02"))


def note(what: str, context: ToolContext) -> None:
    """Append one line, whole, whoever else appends."""
    line = f"{what} {context.run} {context.call_id} {os.getpid()} {time.time():.6f}\n"
    descriptor = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


@tool
async def work(on: str, context: ToolContext) -> str:
    """Do a little work on something."""
    note("begin", context)
    await trio.sleep(TOOL_SECONDS)
    note("end", context)
    return f"worked on {on}"


agent = Agent(name="chaos", model="emulated", tools=[work])

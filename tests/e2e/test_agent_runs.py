"""Whole runs: agent, conversation, pool and emulator over real sockets."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

import pytest
import trio

from pool.emulator import Emulator, EmulatorSettings, context_digest, serve_emulator
from pool.settings import Endpoint
from scheduler.agent import Agent
from scheduler.run import RunResult
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.tools import RunEvent, ToolContext, tool


class Mode(enum.Enum):
    TEXT = "text"
    REGEX = "regex"


@dataclasses.dataclass
class Place:
    path: str
    lines: tuple[int, int]


@tool(inline=True)
def add(a: int, b: Annotated[int, "the second"] = 1) -> int:
    """Add two numbers."""
    return a + b


@tool
def search(
    query: str, mode: Mode, places: list[Place], flags: set[Literal["i", "m"]] | None = None
) -> dict[str, int]:
    """Search in a thread."""
    return {query: len(places) + len(flags or ()), mode.value: 1}


@tool
async def fetch(context: ToolContext, url: str, retries: int | None = 3) -> str:
    """Fetch as a task."""
    await trio.lowlevel.checkpoint()
    return f"{context.turn} {url} {retries}"


@dataclasses.dataclass
class Verdict:
    """What came of it."""

    summary: str
    places: list[Place]
    confidence: Literal["low", "high"]
    note: str | None = None


TOOLS = (add, search, fetch)
LONG = {"emulator": "calls=6 parallel=4 reasoning=1"}


@asynccontextmanager
async def a_scheduler() -> AsyncIterator[tuple[Scheduler, Emulator]]:
    async with (
        serve_emulator(EmulatorSettings()) as running,
        open_scheduler(Endpoint.emulator(running.url)) as scheduler,
    ):
        yield scheduler, running.emulator


def digest_is_right(result: RunResult) -> bool:
    """The last answer ends with the digest of all that came before it, as the server saw it."""
    items = list(result.conversation.transcript)
    before = items[
        : next(n for n in range(len(items), 0, -1) if items[n - 1].get("type") == "function_call_output")
    ]
    return result.text.rpartition("context:")[2] == context_digest(before)


async def test_a_run_of_many_tools_travels_as_deltas() -> None:
    async with a_scheduler() as (scheduler, _):
        agent = Agent(model="gpt-5.4", instructions="Work.", tools=TOOLS)
        conversation = scheduler.conversation(name="all")
        result = await agent.run(scheduler, "Go.", conversation=conversation, metadata=LONG)
        assert (result.turns, result.tools_executed, result.tools_failed) == (7, 24, 0)
        assert [placement.kind for placement in result.placements] == ["replay"] + ["delta"] * 6
        assert digest_is_right(result)
        assert result.usage.total_tokens > 0


async def test_many_runs_at_once_share_the_agent() -> None:
    async with a_scheduler() as (scheduler, _):
        agent = Agent(model="gpt-5.4", instructions="Work.", tools=TOOLS)
        results: list[RunResult] = []

        async def one(number: int) -> None:
            results.append(await agent.run(scheduler, f"Task {number}.", metadata=LONG))

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(one, number)
        assert [result.tools_failed for result in results] == [0] * 12
        assert all(digest_is_right(result) for result in results)


@pytest.mark.parametrize("kind", [Verdict, list[Place], int], ids=str)
async def test_a_structured_answer(kind: type) -> None:
    async with a_scheduler() as (scheduler, _):
        agent = Agent(model="gpt-5.4", tools=[add], output_type=kind)
        result = await agent.run(scheduler, "Judge.", metadata={"emulator": "calls=1"})
        assert isinstance(result.output, getattr(kind, "__origin__", kind))
        assert result.turns == 2


async def test_a_stream_tells_the_server_s_events_and_the_tools() -> None:
    async with a_scheduler() as (scheduler, _):
        agent = Agent(model="gpt-5.4", tools=TOOLS)
        told: list[RunEvent] = []
        async with agent.stream(scheduler, "Go.", metadata={"emulator": "calls=1 parallel=2"}) as stream:
            async for event in stream:
                told.append(event)  # noqa: PERF401  # each is looked at as it comes
        types = [event.type for event in told]
        assert types.count("response.completed") == 2
        assert types.count("warmline.tool_started") == types.count("warmline.tool_finished") == 2
        assert types.index("response.completed") < types.index("warmline.tool_started")
        text = "".join(event.payload["delta"] for event in told if event.type == "response.output_text.delta")
        assert text == stream.result.text


async def test_a_turn_lost_midway_runs_no_tool_again() -> None:
    executed: list[str] = []

    @tool(inline=True)
    def note(text: str, context: ToolContext) -> str:
        """Note."""
        executed.append(context.call_id)
        return text

    async with a_scheduler() as (scheduler, emulator):
        agent = Agent(model="gpt-5.4", tools=[note])
        restarted = []

        async def on_event(event: RunEvent) -> None:
            await trio.lowlevel.checkpoint()
            if event.type == "warmline.restarted":
                restarted.append(event)

        for script in ("calls=4 parallel=2 fault=drop,at=3,once", "calls=3 fault=drop,at=2,once"):
            result = await agent.run(scheduler, script, metadata={"emulator": script}, on_event=on_event)
            assert digest_is_right(result)
        assert len(executed) == len(set(executed)) == 11
        assert restarted
        assert emulator.stats.connections > 1

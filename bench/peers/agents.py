"""(f) The openai-agents SDK with its WebSocket model: its own run loop, one provider, so one connection, a run.

That model carries one response at a time, so runs that shared it would wait for one another.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    ModelSettings,
    OpenAIProvider,
    RunConfig,
    RunHooks,
    Runner,
    set_tracing_disabled,
)
from agents.tool_context import ToolContext
from openai import AsyncOpenAI

from bench.job import INCLUDE, MODEL, PROMPT, Job, Lap, Play, measure, read_job, report
from bench.tools import TOOLS


class Stopwatch(RunHooks[Any]):
    """Times the model's turns."""

    def __init__(self, lap: Lap) -> None:
        self._lap, self._started, self.turns = lap, 0.0, 0

    async def on_llm_start(self, *_: Any, **__: Any) -> None:
        """Start."""
        self._started = time.perf_counter()

    async def on_llm_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self._lap.turns.append(time.perf_counter() - self._started)
        self.turns += 1


def called(name: str) -> Callable[[ToolContext[Any], str], Any]:
    """Return what runs one of the tools."""

    async def invoke(_context: ToolContext[Any], arguments: str) -> str:
        return await TOOLS[name](**json.loads(arguments))

    return invoke


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[Play]:
    """Open a provider for each run."""
    set_tracing_disabled(True)
    agent: Agent[Any] = Agent(
        name="walker",
        instructions=job.instructions,
        model=MODEL,
        tools=[
            FunctionTool(
                name=one["name"],
                description=one["description"],
                params_json_schema=dict(one["parameters"]),
                on_invoke_tool=called(one["name"]),
            )
            for one in job.tools
        ],
    )
    async with AsyncOpenAI(api_key="none", base_url=job.url) as client:
        providers = [
            OpenAIProvider(openai_client=client, use_responses=True, use_responses_websocket=True)
            for _ in range(job.runs)
        ]

        async def run(provider: OpenAIProvider, job: Job, lap: Lap) -> None:
            started, hooks = time.perf_counter(), Stopwatch(lap)
            settings = ModelSettings(metadata=job.metadata, store=False, response_include=INCLUDE)
            result = await Runner.run(
                agent.clone(model_settings=settings),
                PROMPT,
                max_turns=job.turns + 1,
                hooks=hooks,
                auto_previous_response_id=True,
                run_config=RunConfig(model_provider=provider),
            )
            lap.runs.append(time.perf_counter() - started)
            job.check(hooks.turns, result.final_output)

        async def play(job: Job, lap: Lap) -> None:
            await asyncio.gather(*(run(provider, job, lap) for provider in providers))

        yield play
        for provider in providers:
            await provider.aclose()


if __name__ == "__main__":
    report(asyncio.run(measure(read_job(), opened)))

"""The official agents SDK against the emulator, unmodified: HTTP and WebSocket, with tools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIProvider,
    RunConfig,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.models.openai_provider import OpenAIProvider as Provider
from openai import AsyncOpenAI
from pydantic import BaseModel

from pool.emulator import EmulatorSettings, RunningEmulator, context_digest
from tests.e2e.official import emulator_in_thread, validated

KEY = "sk-test-agents"


class Verdict(BaseModel):
    """A structured answer."""

    title: str
    score: int
    tags: list[str]


@pytest.fixture(scope="module")
def running() -> Iterator[RunningEmulator]:
    set_tracing_disabled(True)
    with emulator_in_thread(EmulatorSettings(api_key=KEY)) as emulator:
        yield emulator


@asynccontextmanager
async def provider(running: RunningEmulator, *, socket: bool) -> AsyncIterator[Provider]:
    async with AsyncOpenAI(api_key=KEY, base_url=running.url) as client:
        made = OpenAIProvider(openai_client=client, use_responses=True, use_responses_websocket=socket)
        yield made
        await made.aclose()
    for _ in range(3):  # transports close in callbacks of the loop, which must run before it ends
        await asyncio.sleep(0)


def agent_with_tools(knobs: str, used: list[str]) -> Agent[None]:
    @function_tool
    def list_files(folder: str) -> str:
        """List the files of a folder."""
        used.append(f"list {folder}")
        return "docs/one.md\ndocs/two.md\nsrc/three.py"

    @function_tool
    async def read_file(path: str, limit: int = 10) -> str:
        """Read a file."""
        await asyncio.sleep(0)
        used.append(f"read {path}")
        return f"the first {limit} lines of {path}"

    return Agent(
        name="reader",
        instructions="Walk the files.",
        model="gpt-6-astra",
        tools=[list_files, read_file],
        model_settings=ModelSettings(
            metadata={"emulator": knobs}, store=False, response_include=["reasoning.encrypted_content"]
        ),
    )


def digest_of_result(result: Any) -> str:
    """Compute the digest of everything before the final answer, from the SDK's own replay list."""
    items = result.to_input_list()
    last = max(index for index, item in enumerate(items) if item.get("type") == "function_call_output")
    return context_digest(items[: last + 1])


@pytest.mark.parametrize("socket", [False, True], ids=["http", "websocket"])
def test_an_agent_with_tools(running: RunningEmulator, socket: bool) -> None:
    used: list[str] = []

    async def run() -> Any:
        async with provider(running, socket=socket) as made:
            agent = agent_with_tools("calls=4 parallel=2 reasoning=1", used)
            return await Runner.run(agent, "look around", run_config=RunConfig(model_provider=made))

    result = asyncio.run(run())
    assert len(used) == 8
    assert any(one.startswith("read docs/") or one.startswith("read src/") for one in used)
    assert result.final_output.endswith(f"context:{digest_of_result(result)}")


@pytest.mark.parametrize("socket", [False, True], ids=["http", "websocket"])
def test_a_streamed_agent_sees_only_valid_events(running: RunningEmulator, socket: bool) -> None:
    used: list[str] = []
    kinds: list[str] = []

    async def run() -> Any:
        async with provider(running, socket=socket) as made:
            agent = agent_with_tools("calls=2 parallel=3", used)
            result = Runner.run_streamed(agent, "look around", run_config=RunConfig(model_provider=made))
            async for event in result.stream_events():
                if event.type == "raw_response_event":
                    raw = validated(event.data, http=True)
                    kinds.append(raw["type"])
            return result

    result = asyncio.run(run())
    assert kinds.count("response.completed") == 3
    assert len(used) == 6
    assert result.final_output.endswith(f"context:{digest_of_result(result)}")


@pytest.mark.parametrize("socket", [False, True], ids=["http", "websocket"])
def test_a_structured_answer(running: RunningEmulator, socket: bool) -> None:
    async def run() -> Any:
        async with provider(running, socket=socket) as made:
            agent = Agent(name="judge", model="gpt-6-astra", output_type=Verdict)
            return await Runner.run(agent, "judge this", run_config=RunConfig(model_provider=made))

    assert isinstance(asyncio.run(run()).final_output, Verdict)


def test_continuing_by_response_id_over_one_socket(running: RunningEmulator) -> None:
    async def run() -> tuple[Any, Any]:
        async with provider(running, socket=True) as made:
            agent = Agent(name="talker", model="gpt-6-astra", model_settings=ModelSettings(store=False))
            config = RunConfig(model_provider=made)
            first = await Runner.run(agent, "one", run_config=config)
            second = await Runner.run(
                agent, "two", run_config=config, previous_response_id=first.last_response_id
            )
            return first, second

    first, second = asyncio.run(run())
    items = [*first.to_input_list(), {"role": "user", "content": "two"}]
    assert second.final_output.endswith(context_digest(items))

"""The official agents SDK through the gateway, unmodified, over HTTP, while things break upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
from openai import AsyncOpenAI

from tests.e2e.behind import FAULTS, KEY, Behind, behind_gateway
from tests.e2e.test_official_agents import digest_of_result

RUNS = 25


@pytest.fixture(autouse=True)
def untraced() -> None:
    set_tracing_disabled(True)


@asynccontextmanager
async def config(behind: Behind) -> AsyncIterator[RunConfig]:
    async with AsyncOpenAI(api_key=KEY, base_url=behind.url, max_retries=0) as client:
        yield RunConfig(model_provider=OpenAIProvider(openai_client=client, use_responses=True))


def agent(used: list[str], **settings: Any) -> Agent[None]:
    @function_tool
    def list_files(folder: str) -> str:
        """List the files of a folder."""
        used.append(folder)
        return "docs/one.md\ndocs/two.md\nsrc/three.py"

    @function_tool
    async def read_file(path: str, limit: int = 10) -> str:
        """Read a file."""
        await asyncio.sleep(0)
        used.append(path)
        return f"the first {limit} lines of {path}"

    return Agent(
        name="reader",
        instructions="Walk the files.",
        model="gpt-6-astra",
        tools=[list_files, read_file],
        model_settings=ModelSettings(
            metadata={"emulator": "calls=3 parallel=2 reasoning=1 output_tokens=8"}, **settings
        ),
    )


@pytest.mark.parametrize("faults", ["", FAULTS], ids=["calm", "storm"])
def test_agents_at_once(faults: str) -> None:
    """Half of them keep encrypted reasoning, half let the server store; the SDK sends its whole history."""
    used: list[str] = []

    async def run(behind: Behind) -> list[Any]:
        async with config(behind) as configured:

            async def one(number: int) -> Any:
                own: list[str] = []
                settings: dict[str, Any] = {"store": True}
                if number % 2:
                    settings = {"store": False, "response_include": ["reasoning.encrypted_content"]}
                result = await Runner.run(agent(own, **settings), f"look {number}", run_config=configured)
                assert len(own) == 6
                used.extend(own)
                return result

            return await asyncio.gather(*(one(number) for number in range(RUNS)))

    with behind_gateway(faults) as behind:
        results = asyncio.run(run(behind))
    for result in results:
        assert result.final_output.endswith(f"context:{digest_of_result(result)}")
    assert len(used) == RUNS * 6
    assert behind.reasons.total() == RUNS * 4
    if not faults:
        behind.assert_conversations_go_on(RUNS, 4)


def test_a_streamed_agent_continued_by_its_last_response() -> None:
    used: list[str] = []

    async def run(behind: Behind) -> tuple[Any, Any]:
        async with config(behind) as configured:
            reader = agent(used, store=False)
            first = Runner.run_streamed(reader, "look around", run_config=configured)
            async for _ in first.stream_events():
                pass
            second = await Runner.run(
                reader, "again", run_config=configured, previous_response_id=first.last_response_id
            )
            return first, second

    with behind_gateway() as behind:
        first, second = asyncio.run(run(behind))
    assert first.final_output
    assert second.final_output
    assert set(behind.reasons) == {"replay:new", "hot"}

"""The official Python SDK through the gateway, unmodified, while things break upstream: every context is right."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from pool.emulator import context_digest
from tests.e2e.behind import FAULTS, KEY, Behind, behind_gateway
from tests.e2e.official import check_stream

MODEL = "gpt-6-astra"
TOOL: Any = {
    "type": "function",
    "name": "read_file",
    "description": "Read a file.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string"}},
        "required": ["path"],
        "additionalProperties": False,
    },
}
STYLES = ("history", "parent", "streamed history", "streamed parent", "stored parent")


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    with behind_gateway() as made:
        yield made


@pytest.fixture
def client(behind: Behind) -> Iterator[OpenAI]:
    with OpenAI(api_key=KEY, base_url=behind.url, max_retries=0) as made:
        yield made


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def outputs(response: Any) -> list[dict[str, Any]]:
    calls = [item for item in response.output if item.type == "function_call"]
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"of {call.arguments}"}
        for call in calls
    ]


async def streamed(client: AsyncOpenAI, fields: dict[str, Any]) -> Any:
    """Take a turn as a stream. When it breaks off after output was seen it has failed, and is taken again."""
    for _ in range(10):
        events = [event async for event in await client.responses.create(**fields, stream=True)]
        check_stream([event.to_dict() for event in events])
        if events[-1].type == "response.completed":
            return events[-1].response
        assert events[-1].type == "response.failed"
    raise AssertionError("ten times in a row")


async def converse(client: AsyncOpenAI, number: int) -> int:
    """Walk one conversation with tools in one style, and check each context; return its turns."""
    style = STYLES[number % len(STYLES)]
    fields: dict[str, Any] = {
        "model": MODEL,
        "store": style == "stored parent",
        "tools": [TOOL],
        "instructions": "Be brief.",
        "metadata": {"emulator": f"calls=3 parallel=2 reasoning={number % 2} output_tokens=8"},
    }
    history: list[Any] = [user(f"conversation {number}")]
    new, parent, turns = history, None, 0
    while new:
        asked = {"input": history} if "history" in style else {"input": new, "previous_response_id": parent}
        if parent is None:
            asked.pop("previous_response_id", None)
        if style.startswith("streamed"):
            response = await streamed(client, {**fields, **asked})
        else:
            response = await client.responses.create(**fields, **asked)
        turns += 1
        assert response.metadata is not None
        assert response.metadata["context"] == context_digest(history), (style, turns)
        assert response.previous_response_id == asked.get("previous_response_id")
        new = outputs(response)
        history = [*history, *(item.to_dict() for item in response.output), *new]
        parent = response.id
    return turns


@pytest.mark.parametrize("faults", ["", FAULTS], ids=["calm", "storm"])
def test_fifty_at_once(faults: str) -> None:
    async def run(url: str) -> list[int]:
        async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
            return await asyncio.gather(*(converse(client, number) for number in range(50)))

    with behind_gateway(faults) as behind:
        assert asyncio.run(run(behind.url)) == [4] * 50
    assert behind.reasons.total() == 200
    if faults:
        assert behind.retries.total() > 5
    else:
        behind.assert_conversations_go_on(50, 4)

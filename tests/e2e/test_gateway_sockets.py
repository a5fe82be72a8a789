"""Official clients over WebSocket through the gateway, unmodified, while things break upstream."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
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
from openai import AsyncOpenAI, OpenAI
from openai.lib.responses_websocket import AsyncResponsesWebSocketSession, ResponsesWebSocketLimits
from openai.resources.responses.responses import AsyncResponsesConnection

from pool.emulator import context_digest
from pool.wire.codec import from_json, to_json
from tests.e2e.behind import FAULTS, KEY, behind_gateway
from tests.e2e.official import check_stream, validated
from tests.e2e.test_gateway_node import SDK
from tests.support.node import node, npm_install

MODEL = "gpt-6-astra"
CLIENTS, TURNS, LANES = 12, 3, 6
LIMITS = ResponsesWebSocketLimits(
    max_lanes=9, max_events_per_lane=4096, max_events=32768, max_bytes_per_lane=1 << 24, max_bytes=1 << 26
)
WORLDS = pytest.mark.parametrize(
    "world", [{}, {"faults": FAULTS}, {"rotate_every": 0.05}], ids=["calm", "storm", "rotating"]
)
# The agents SDK does not try again when a response has failed, so nothing may break off for it.
GENTLE = "rate_limit,p=0.05,retry_after=0.02;error,status=503,p=0.05;forget,p=0.1;empty,p=0.1"
BREAKING = pytest.mark.parametrize(
    "world", [{"faults": FAULTS}, {"rotate_every": 0.05}], ids=["storm", "rotating"]
)
PATIENCE = 30  # s, for one event
TERMINAL = ("response.completed", "response.failed", "error")


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def asked(text: str, parent: str | None, **fields: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "input": [user(text)],
        "previous_response_id": parent,
        "store": False,
        "metadata": {"emulator": "calls=0 output_tokens=12"},
        **fields,
    }


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[AsyncResponsesConnection]:
    chosen: Any = options or {"max_size": None}
    async with (
        AsyncOpenAI(api_key=KEY, base_url=url) as client,
        client.responses.connect(websocket_connection_options=chosen) as connection,
    ):
        yield connection


async def told(connection: AsyncResponsesConnection, create: dict[str, Any]) -> list[dict[str, Any]]:
    """Take a turn, again when it has failed: a socket that is lost upstream in mid-response cannot be hidden."""
    for _ in range(10):
        await connection.response.create(**create)
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] not in TERMINAL:
            events.append(validated(await asyncio.wait_for(connection.recv(), PATIENCE)))
        check_stream(events)
        if events[-1]["type"] == "response.completed":
            return events
    raise AssertionError("ten times in a row")


async def converse(url: str, number: int) -> None:
    """Take some turns on a socket of its own; every event is valid, every context right."""
    items: list[Any] = []
    parent: str | None = None
    options = {"max_size": 1 << 24, "compression": "deflate"} if number % 2 else {"max_size": None}
    async with connected(url, **options) as connection:
        for turn in range(TURNS):
            text = f"client {number} turn {turn}"
            items.append(user(text))
            events = await told(connection, asked(text, parent))
            response = events[-1]["response"]
            assert response["metadata"]["context"] == context_digest(items)
            assert response["previous_response_id"] == parent
            items += response["output"]
            parent = response["id"]


@WORLDS
def test_many_sockets_of_the_python_sdk(world: Any) -> None:
    async def run(url: str) -> None:
        await asyncio.gather(*(converse(url, number) for number in range(CLIENTS)))

    with behind_gateway(**world) as behind:
        asyncio.run(run(behind.url))
        clients = behind.gateway.counts["requests"]
    assert clients == CLIENTS  # one upgrade each: nobody had to come again
    assert behind.reasons.total() >= CLIENTS * TURNS
    if "rotate_every" in world:
        assert behind.rotated > 0
        assert not behind.retries
    elif not world:
        behind.assert_conversations_go_on(CLIENTS, TURNS)


def test_the_synchronous_connection() -> None:
    with behind_gateway(GENTLE) as behind, OpenAI(api_key=KEY, base_url=behind.url) as client:
        items: list[Any] = []
        parent: str | None = None
        with client.responses.connect() as connection:
            for turn in range(TURNS):
                items.append(user(f"turn {turn}"))
                connection.response.create(**asked(f"turn {turn}", parent))
                event = validated(connection.recv())
                while event["type"] != "response.completed":
                    event = validated(connection.recv())
                assert event["response"]["metadata"]["context"] == context_digest(items)
                items += event["response"]["output"]
                parent = event["response"]["id"]


async def session_with_lanes(url: str) -> None:
    async with (
        connected(url) as connection,
        AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        lanes = [session.lane(f"lane-{index}") for index in range(LANES)]
        items: list[list[Any]] = [[] for _ in lanes]
        parents: list[str | None] = [None] * LANES
        for turn in range(TURNS):
            open_lanes = list(range(LANES))
            for index in open_lanes:
                items[index].append(user(f"{index} {turn}"))
            while open_lanes:
                for index in open_lanes:
                    create: Any = {"type": "response.create", **asked(f"{index} {turn}", parents[index])}
                    await lanes[index].send(create)
                finals = [
                    await asyncio.wait_for(lanes[index].get_final_response(), PATIENCE)
                    for index in open_lanes
                ]
                for index, response in zip(list(open_lanes), finals, strict=True):
                    if response.status == "failed":
                        continue
                    assert response.metadata is not None
                    assert response.metadata["context"] == context_digest(items[index])
                    said: dict[str, Any] = response.to_dict()
                    items[index] += said["output"]
                    parents[index] = response.id
                    open_lanes.remove(index)
        # A fork of the first lane's conversation on the last one, from a response that is not its latest.
        create = {"type": "response.create", **asked("fork", parents[0])}
        await lanes[-1].send(create)
        forked = await lanes[-1].get_final_response()
        assert forked.metadata is not None
        assert forked.metadata["context"] == context_digest([*items[0], user("fork")])


@BREAKING
def test_the_sdks_session_with_lanes(world: Any) -> None:
    with behind_gateway(**world) as behind:
        asyncio.run(session_with_lanes(behind.url))


@pytest.mark.parametrize("faults", ["", GENTLE], ids=["calm", "gentle"])
def test_the_agents_sdk_over_a_socket(faults: str) -> None:
    used: list[str] = []

    @function_tool
    def read_file(path: str) -> str:
        """Read a file."""
        used.append(path)
        return f"contents of {path}"

    async def run(url: str) -> list[Any]:
        async with AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
            provider = OpenAIProvider(openai_client=client, use_responses=True, use_responses_websocket=True)
            settings = ModelSettings(
                metadata={"emulator": "calls=3 parallel=2"},
                store=False,
                response_include=["reasoning.encrypted_content"],
            )
            agent = Agent(name="reader", model=MODEL, tools=[read_file], model_settings=settings)
            config = RunConfig(model_provider=provider)
            results = await asyncio.gather(
                *(Runner.run(agent, f"look around {number}", run_config=config) for number in range(4))
            )
            await provider.aclose()
        for _ in range(3):  # transports close in callbacks of the loop, which must run before it ends
            await asyncio.sleep(0)
        return list(results)

    set_tracing_disabled(True)
    with behind_gateway(faults) as behind:
        results = asyncio.run(run(behind.url))
    assert len(used) == 4 * 3 * 2  # no tool ran twice
    for result in results:
        items = result.to_input_list()
        last = max(index for index, item in enumerate(items) if item.get("type") == "function_call_output")
        assert result.final_output.endswith(f"context:{context_digest(items[: last + 1])}")


@BREAKING
def test_sockets_of_the_nodejs_sdk(world: Any, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(npm_install(SDK, "ws@8.21.0"))
    script = shutil.copy(Path(__file__).with_name("gateway_sockets.mjs"), tmp_path)
    with behind_gateway(**world) as behind:
        shape = {"url": behind.url, "key": KEY, "sockets": 6, "lanes": 3, "turns": TURNS}
        done = subprocess.run(
            [node(), str(script), to_json(shape).decode()], capture_output=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    conversations = from_json(done.stdout)
    assert [len(seen) for seen in conversations] == [TURNS] * 18
    for seen in conversations:
        for turn in seen:
            assert turn["context"] == context_digest(turn["items"])
            assert turn["text"].endswith(turn["context"])

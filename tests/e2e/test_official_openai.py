"""The official SDK against the emulator, unmodified, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.lib.responses_websocket import AsyncResponsesWebSocketSession, ResponsesWebSocketLimits
from openai.resources.responses.responses import AsyncResponsesConnection
from openai.types.responses import Response
from openai.types.responses.responses_client_event import ResponseCreate
from websockets.exceptions import InvalidStatus

from pool.emulator import EmulatorSettings, RunningEmulator, context_digest
from tests.e2e.official import check_stream, emulator_in_thread, validated

KEY = "sk-test-5d1f"
TOOL: Any = {
    "type": "function",
    "name": "read_file",
    "description": "Read a file.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "mode": {"type": "string", "enum": ["text", "lines"]}},
        "required": ["path", "mode"],
        "additionalProperties": False,
    },
}
LIMITS = ResponsesWebSocketLimits(
    max_lanes=9, max_events_per_lane=4096, max_events=32768, max_bytes_per_lane=1 << 24, max_bytes=1 << 26
)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningEmulator]:
    with emulator_in_thread(EmulatorSettings(api_key=KEY)) as emulator:
        yield emulator


@pytest.fixture
def client(running: RunningEmulator) -> Iterator[OpenAI]:
    with OpenAI(api_key=KEY, base_url=running.url, max_retries=0) as made:
        yield made


def outputs_for(response: dict[str, Any]) -> list[dict[str, Any]]:
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    return [
        {
            "type": "function_call_output",
            "call_id": call["call_id"],
            "output": f"output of {call['arguments']}",
        }
        for call in calls
    ]


def test_a_plain_create_is_a_complete_response(client: OpenAI) -> None:
    response = client.responses.create(model="gpt-6-astra", input="hello", instructions="Be brief.")
    assert Response.model_validate(response.to_dict(), strict=True) == response
    assert response.status == "completed"
    assert response.output_text.endswith(f"context:{context_digest([{'role': 'user', 'content': 'hello'}])}")
    assert response.usage is not None
    assert response.usage.output_tokens == 24
    assert client.responses.retrieve(response.id) == response


def test_stored_responses_continue_over_http(client: OpenAI) -> None:
    first = client.responses.create(model="gpt-6-astra", input="hello")
    second: Any = client.responses.create(model="gpt-6-astra", input="more", previous_response_id=first.id)
    items = [
        {"role": "user", "content": "hello"},
        *first.to_dict()["output"],
        {"role": "user", "content": "more"},
    ]  # type: ignore[misc]
    assert second.output_text.endswith(context_digest(items))
    assert second.previous_response_id == first.id


@pytest.mark.parametrize(
    "knobs", ["", "calls=1 parallel=2 reasoning=2", "output_tokens=80", "deltas=40 calls=1"]
)
def test_streamed_events_are_valid(client: OpenAI, knobs: str) -> None:
    stream = client.responses.create(
        model="gpt-6-astra",
        input="hello",
        stream=True,
        store=False,
        tools=[TOOL],
        include=["reasoning.encrypted_content"],
        reasoning={"effort": "low", "summary": "auto"},
        metadata={"emulator": knobs},
    )
    events = [validated(event, http=True) for event in stream]
    check_stream(events)
    if "deltas=40" in knobs:
        assert sum(event["type"] == "response.function_call_arguments.delta" for event in events) == 40


@pytest.mark.parametrize(
    ("fields", "last"),
    [
        ({"max_output_tokens": 16}, "response.incomplete"),
        ({"metadata": {"emulator": "fault=failed,at=9"}}, "response.failed"),
        ({"metadata": {"emulator": "fault=empty"}}, "response.completed"),
        ({"context_management": [{"type": "compaction", "compact_threshold": 16}]}, "response.completed"),
    ],
    ids=["incomplete", "failed", "empty", "compaction"],
)
def test_unusual_endings_are_valid_too(client: OpenAI, fields: Any, last: str) -> None:
    items: Any = [{"role": "user", "content": "one " * 30}, {"role": "user", "content": "two " * 30}]
    stream: Any = client.responses.create(model="gpt-6-astra", input=items, stream=True, **fields)
    events = [validated(event, http=True) for event in stream]
    assert events[-1]["type"] == last
    if "context_management" in fields:
        assert [item["type"] for item in events[-1]["response"]["output"]] == ["compaction", "message"]


def test_the_synchronous_connection(client: OpenAI) -> None:
    with client.responses.connect() as connection:
        for fault, last in (("rate_limit,retry_after=2", "error"), ("failed,at=6", "response.failed")):
            knobs = {"emulator": f"fault={fault}"}
            connection.response.create(model="gpt-6-astra", input="hello", stream_id="a", metadata=knobs)
            events = [validated(connection.recv())]
            while events[-1]["type"] not in ("error", "response.failed"):
                events.append(validated(connection.recv()))
            assert events[-1]["type"] == last
            assert {event["stream_id"] for event in events} == {"a"}


def test_the_streaming_helper_and_structured_output(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string"}, "sure": {"type": "boolean"}},
        "required": ["answer", "sure"],
        "additionalProperties": False,
    }
    form: Any = {"format": {"type": "json_schema", "name": "reply", "schema": schema, "strict": True}}
    with client.responses.stream(model="gpt-6-astra", input="hello world", text=form) as stream:
        final = stream.get_final_response()
    assert final.output_text.startswith('{"answer":')
    assert final.metadata is not None
    assert final.metadata["context"] == context_digest([{"role": "user", "content": "hello world"}])


def test_errors_have_openai_shape(client: OpenAI, running: RunningEmulator) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="gpt-6-astra", input="x", previous_response_id="resp_nowhere")
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_nowhere")
    with pytest.raises(openai.NotFoundError, match="Items are not persisted when `store` is set to false"):
        client.responses.create(
            model="gpt-6-astra", input=[{"type": "reasoning", "id": "rs_1", "summary": []}], store=False
        )
    with pytest.raises(openai.BadRequestError, match="Unknown parameter: 'stream_id'"):
        client.responses.create(model="gpt-6-astra", input="x", extra_body={"stream_id": "a"})
    wrong = OpenAI(api_key="sk-wrong", base_url=running.url, max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()


def test_rate_limits_are_retried_by_the_sdk(running: RunningEmulator) -> None:
    with OpenAI(api_key=KEY, base_url=running.url, max_retries=2) as client:
        knobs = "fault=rate_limit,retry_after=0.01,once"
        response = client.responses.create(model="m", input="limited", metadata={"emulator": knobs})
        assert response.status == "completed"


def test_models_and_compaction(client: OpenAI) -> None:
    assert "gpt-6-astra" in [model.id for model in client.models.list()]
    assert client.models.retrieve("any").id == "any"
    first = client.responses.create(model="gpt-6-astra", input="remember the milk")
    compacted = client.responses.compact(
        model="gpt-6-astra", previous_response_id=first.id, input="and bread"
    )
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    window: Any = compacted.to_dict(warnings=False)["output"]  # user messages are not in the class
    after = client.responses.create(model="gpt-6-astra", input=[*window, {"role": "user", "content": "go"}])
    assert after.output_text.endswith(context_digest([*window, {"role": "user", "content": "go"}]))


@asynccontextmanager
async def connected(running: RunningEmulator, **options: Any) -> AsyncIterator[AsyncResponsesConnection]:
    key = options.pop("key", KEY)
    socket: Any = options or {"max_size": None}
    async with (
        AsyncOpenAI(api_key=key, base_url=running.url) as client,
        client.responses.connect(websocket_connection_options=socket) as connection,
    ):
        yield connection


async def websocket_tool_loop(running: RunningEmulator) -> None:
    transcript: list[dict[str, Any]] = [{"role": "user", "content": "walk"}]
    fresh: Any = list(transcript)
    parent: str | None = None
    async with connected(running) as connection:
        for turn in range(4):
            await connection.response.create(
                model="gpt-6-astra",
                input=fresh,
                previous_response_id=parent,
                store=False,
                tools=[TOOL],
                include=["reasoning.encrypted_content"],
                metadata={"emulator": "calls=3 parallel=2 reasoning=1"},
            )
            events: list[dict[str, Any]] = []
            async for event in connection:
                events.append(validated(event))
                if event.type == "response.completed":
                    break
            check_stream(events)
            response = events[-1]["response"]
            assert response["metadata"]["context"] == context_digest(transcript)
            fresh, parent = outputs_for(response), response["id"]
            assert bool(fresh) == (turn < 3)
            transcript += [*response["output"], *fresh]
    assert running.emulator.stats.deltas >= 3


def test_a_tool_loop_over_websocket(running: RunningEmulator) -> None:
    asyncio.run(websocket_tool_loop(running))


def create(text: str, **fields: Any) -> Any:
    return {"type": "response.create", "model": "gpt-6-astra", "input": text, "store": False, **fields}


async def session_with_lanes(running: RunningEmulator) -> None:
    async with (
        connected(running) as connection,
        AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        lanes = [session.lane(f"lane-{index}") for index in range(6)]
        parents: list[str | None] = [None] * 6
        for _ in range(2):
            for index, lane in enumerate(lanes):
                knobs = {"emulator": "output_tokens=30"}
                await lane.send(create(f"lane {index}", previous_response_id=parents[index], metadata=knobs))
            for index, lane in enumerate(lanes):
                events: list[dict[str, Any]] = []
                while not events or events[-1]["type"] != "response.completed":
                    events.append(validated(await lane.recv()))
                check_stream(events)
                assert {event["stream_id"] for event in events} == {f"lane-{index}"}
                parents[index] = (await lane.get_final_response()).id
        assert len(set(parents)) == 6

        # A warm-up on one lane, a fork from it on another, then an error that only one lane sees.
        await lanes[0].send(ResponseCreate.model_validate(create("base", generate=False)))
        base = await lanes[0].get_final_response()
        assert base.output == []
        await lanes[1].send(create("fork", previous_response_id=base.id))
        fork = await lanes[1].get_final_response()
        assert fork.output_text.endswith(
            context_digest([{"role": "user", "content": "base"}, {"role": "user", "content": "fork"}])
        )
        await lanes[2].send(create("x", previous_response_id="resp_none"))
        error = validated(await lanes[2].recv())
        assert error["error"]["code"] == "previous_response_not_found"
        assert error["stream_id"] == "lane-2"


def test_the_websocket_session_with_several_lanes(running: RunningEmulator) -> None:
    asyncio.run(session_with_lanes(running))


async def steered(running: RunningEmulator) -> None:
    kinds: list[str] = []
    async with connected(running) as connection:
        knobs = {"emulator": "output_tokens=600"}
        await connection.response.create(model="gpt-6-astra", input="long", metadata=knobs, stream_id="s")
        created = validated(await connection.recv())["response"]["id"]
        await connection.response.steer(previous_response_id=created, input="shorter")
        while kinds.count("response.completed") + kinds.count("response.steer.failed") < 2:
            event = validated(await connection.recv())
            kinds.append(event["type"])
            assert event.get("stream_id", "s") == "s"
            if event["type"] == "response.incomplete":
                assert event["response"]["incomplete_details"] == {"reason": "steered"}
                await connection.response.steer(previous_response_id=created, input="too late")
            elif event["type"] == "response.steer.failed":
                assert event["error"]["code"] == "response_already_completed"
                assert event["steer"]["input"] == "too late"
    assert kinds.index("response.steer.accepted") < kinds.index("response.incomplete")
    assert kinds.index("response.incomplete") < kinds.index("response.created")


def test_steering(running: RunningEmulator) -> None:
    asyncio.run(steered(running))


@pytest.mark.parametrize("compression", ["deflate", None])
def test_compression_may_be_offered(running: RunningEmulator, compression: str | None) -> None:
    async def run() -> None:
        async with connected(running, max_size=1 << 24, compression=compression) as connection:
            await connection.response.create(model="m", input="hello")
            async for event in connection:
                if event.type == "response.completed":
                    assert event.response.output_text
                    return

    asyncio.run(run())


def test_a_wrong_key_is_refused_at_the_upgrade(running: RunningEmulator) -> None:
    async def run() -> None:
        async with connected(running, key="sk-wrong"):
            raise AssertionError

    with pytest.raises(InvalidStatus, match="401"):
        asyncio.run(run())

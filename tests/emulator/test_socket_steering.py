"""`response.steer` on a connection."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from pool.emulator import Emulator, EmulatorSettings, Latency, context_digest
from tests.emulator.client import TOOL, Client, answers, connected, knobs, said, user

SLOW = EmulatorSettings(latency=Latency(output=0.1))
LONG = knobs("output_tokens=50")


async def begun(client: Client, **fields: Any) -> str:
    """Start a response and return its id once the first delta came."""
    await client.send(**fields)
    created = await client.receive()
    assert created["type"] == "response.created"
    while not (await client.receive())["type"].endswith(".delta"):
        pass
    return str(created["response"]["id"])


async def steer(client: Client, target: object, text: object = "shorter", **more: Any) -> None:
    await client.send(type="response.steer", previous_response_id=target, input=text, **more)


async def until(client: Client, kind: str) -> dict[str, Any]:
    while True:
        event = await client.receive()
        if event["type"] == kind:
            return event


async def test_a_steered_text_stops_and_a_successor_follows(autojump_clock: MockClock) -> None:
    async with connected(Emulator(SLOW)) as client:
        target = await begun(client, metadata=LONG, stream_id="s")
        await steer(client, target)
        accepted = await until(client, "response.steer.accepted")
        assert accepted["stream_id"] == "s"
        assert accepted["steer"]["previous_response_id"] == target
        assert accepted["steer"]["id"].startswith("steer_")
        stopped = await until(client, "response.incomplete")
        assert stopped["response"]["incomplete_details"] == {"reason": "steered"}
        assert stopped["response"]["output"][0]["status"] == "incomplete"
        successor = await client.receive()
        assert successor["type"] == "response.created"
        assert successor["response"]["previous_response_id"] == target
        done = await until(client, "response.completed")
        assert done["response"]["id"] == successor["response"]["id"]
        context = [user("hello"), *stopped["response"]["output"], user("shorter")]
        assert said(done).endswith(context_digest(context))
        late = await client.turn(stream_id="s", previous_response_id=done["response"]["id"])
        assert late["type"] == "response.completed"


async def test_steering_a_tool_turn_waits_for_its_outputs(autojump_clock: MockClock) -> None:
    async with connected(Emulator(SLOW)) as client:
        target = await begun(client, tools=[TOOL], metadata=knobs("calls=1 deltas=30"))
        await steer(client, target, [{"role": "user", "content": [{"type": "input_text", "text": "hurry"}]}])
        await until(client, "response.steer.accepted")
        done = await until(client, "response.completed")
        pending = await client.receive()
        assert pending["type"] == "response.steer.pending"
        assert pending["reason"] == "waiting_for_required_input"
        call = done["response"]["output"][0]
        stub = {"type": "function_call_output", "call_id": call["call_id"], "name": "look"}
        assert pending["required_input"] == [stub]
        outputs = answers(done["response"]["output"])
        after = await client.turn(previous_response_id=target, input=outputs)
        hurry = {"role": "user", "content": "hurry"}
        assert said(after).endswith(context_digest([user("hello"), call, hurry, *outputs]))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"input": ""}, "invalid_input"),
        ({"input": []}, "invalid_input"),
        ({"input": [{"role": "system", "content": "x"}]}, "invalid_input"),
        ({"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]}, "invalid_input"),
        ({"input": ["x"]}, "invalid_input"),
        ({"input": "x", "stream_id": "s"}, "invalid_input"),
        ({"input": "x", "previous_response_id": None}, "invalid_input"),
        ({"input": "x", "previous_response_id": "resp_unknown"}, "response_not_found"),
    ],
)
async def test_bad_steering_is_given_back(
    autojump_clock: MockClock, fields: dict[str, Any], code: str
) -> None:
    async with connected(Emulator(SLOW)) as client:
        target = await begun(client, metadata=LONG)
        event = {"type": "response.steer", "previous_response_id": target, **fields}
        await client.send(**event)
        failed = await until(client, "response.steer.failed")
        assert failed["error"]["code"] == code
        assert failed["steer"]["input"] == fields["input"]
        assert (await until(client, "response.completed"))["response"]["id"] == target


@pytest.mark.parametrize(
    "fields",
    [{"model": "gpt-5.6-sol"}, {"context_management": [{"type": "compaction", "compact_threshold": 10_000}]}],
)
async def test_some_responses_cannot_be_steered(autojump_clock: MockClock, fields: dict[str, Any]) -> None:
    async with connected(Emulator(SLOW)) as client:
        target = await begun(client, metadata=LONG, **fields)
        await steer(client, target)
        failed = await until(client, "response.steer.failed")
        assert failed["error"]["code"] == "steering_not_supported"


async def test_steering_comes_too_late_or_too_often(autojump_clock: MockClock) -> None:
    async with connected(Emulator(SLOW)) as client:
        done = (await client.turn())["response"]["id"]
        await steer(client, done)
        failed = await client.receive()
        assert failed["error"]["code"] == "response_already_completed"
        target = await begun(client, tools=[TOOL], metadata=knobs("calls=1 deltas=30"))
        for _ in range(17):
            await steer(client, target)
        failed = await until(client, "response.steer.failed")
        assert failed["error"]["code"] == "too_many_pending_steers"


async def test_a_failed_target_gives_its_steering_back(autojump_clock: MockClock) -> None:
    async with connected(Emulator(SLOW)) as client:
        target = await begun(client, tools=[TOOL], metadata=knobs("calls=1 deltas=30 fault=failed,at=20"))
        await steer(client, target)
        accepted = await until(client, "response.steer.accepted")
        await until(client, "response.failed")
        failed = await client.receive()
        assert failed["error"]["code"] == "successor_creation_failed"
        assert failed["steer"]["id"] == accepted["steer"]["id"]


async def test_a_refused_successor_gives_its_steering_back(autojump_clock: MockClock) -> None:
    settings = EmulatorSettings(latency=Latency(output=0.1), faults="rate_limit,create=2")
    async with connected(Emulator(settings)) as client:
        target = await begun(client, metadata=LONG)
        await steer(client, target)
        await until(client, "response.incomplete")
        failed = await client.receive()
        assert failed["type"] == "response.steer.failed"
        assert failed["steer"]["input"] == [user("shorter")]

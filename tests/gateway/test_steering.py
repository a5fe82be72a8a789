"""Steering through the gateway: passed on to the response that runs, and its successor is told under its own id."""

from __future__ import annotations

from typing import Any

import trio

from pool.emulator import EmulatorSettings, context_digest
from pool.settings import Lanes
from tests.emulator.client import Client, connected, knobs, said, user
from tests.emulator.test_socket_steering import begun, steer, until
from tests.gateway.stage import KEY, staged

SLOW = EmulatorSettings(latency="output=0.1")
LONG = knobs("output_tokens=50")


async def test_a_steered_text_stops_and_a_successor_follows(autojump_clock: trio.abc.Clock) -> None:
    async with staged(SLOW) as stage, connected(stage.gateway, headers=KEY) as client:
        target = await begun(client, metadata=LONG, stream_id="s")
        await steer(client, target)
        accepted = await until(client, "response.steer.accepted")
        assert accepted["stream_id"] == "s"
        assert accepted["steer"]["previous_response_id"] == target
        stopped = await until(client, "response.incomplete")
        assert stopped["response"]["incomplete_details"] == {"reason": "steered"}
        assert stopped["response"]["previous_response_id"] is None
        successor = await client.receive()
        assert successor["type"] == "response.created"
        assert successor["stream_id"] == "s"
        assert successor["response"]["previous_response_id"] == target
        done = await until(client, "response.completed")
        assert done["response"]["previous_response_id"] == target
        context: list[Any] = [user("hello"), *stopped["response"]["output"], user("shorter")]
        assert said(done).endswith(context_digest(context))
        context += [*done["response"]["output"], user("more")]
        after = await client.turn(input="more", previous_response_id=done["response"]["id"])
        assert said(after).endswith(context_digest(context))
        # A history without what was said meanwhile is another one.
        plain = [user("hello"), *done["response"]["output"], user("more")]
        other = await client.turn(input=plain, metadata=knobs("calls=0"))
        assert said(other).endswith(context_digest(plain))


async def refused(client: Client, target: object, text: object = "x") -> str:
    await steer(client, target, text)
    failed = await until(client, "response.steer.failed")
    assert failed["steer"]["input"] == text
    return str(failed["error"]["code"])


async def test_what_the_server_refuses_is_said_once(autojump_clock: trio.abc.Clock) -> None:
    async with staged(SLOW) as stage, connected(stage.gateway, headers=KEY) as client:
        target = await begun(client, metadata=LONG, model="gpt-5.6-sol")
        assert await refused(client, target) == "steering_not_supported"
        events = await client.rest()
        assert all(event["type"] != "response.steer.failed" for event in events)
        assert await refused(client, target) == "response_already_completed"


async def test_single_lanes_cannot_be_steered(autojump_clock: trio.abc.Clock) -> None:
    server = EmulatorSettings(latency="output=0.1", lanes=Lanes.single())
    async with staged(server) as stage, connected(stage.gateway, headers=KEY) as client:
        target = await begun(client, metadata=LONG, stream_id="s")
        assert await refused(client, target) == "steering_not_supported"
        assert (await client.rest())[-1]["type"] == "response.completed"

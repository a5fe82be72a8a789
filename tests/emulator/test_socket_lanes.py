"""Lanes on a connection: order, limits, names, and what happens when the client leaves."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Ping, Request

from pool.emulator import Emulator, EmulatorSettings, Latency
from pool.settings import Lanes
from tests.emulator.client import Client, connected, knobs

SLOW = Latency(base=1.0, output=0.1)


async def collect(client: Client, responses: int) -> list[tuple[float, str, str]]:
    """Return (time, lane, type) of every event until so many responses have ended."""
    seen: list[tuple[float, str, str]] = []
    while True:
        event = await client.receive()
        seen.append((round(trio.current_time(), 6), event.get("stream_id", ""), event["type"]))
        if sum(kind == "response.completed" for _, _, kind in seen) == responses:
            return seen


async def test_same_lane_in_order_other_lanes_at_once(autojump_clock: MockClock) -> None:
    async with connected(Emulator(EmulatorSettings(latency=SLOW))) as client:
        for lane in ("a", "a", "b", None):
            named = {"stream_id": lane} if lane else {}
            await client.send(**named, metadata=knobs("output_tokens=10"))
        seen = await collect(client, 4)
    created = sorted((time, lane) for time, lane, kind in seen if kind == "response.created")
    assert created == [(1.0, ""), (1.0, "a"), (1.0, "b"), (3.0, "a")]
    between = [lane for _, lane, kind in seen if kind == "response.output_text.delta"][:6]
    assert len(set(between)) == 3  # interleaved


async def test_sixteen_in_flight_and_the_rest_wait(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(latency=SLOW))
    async with connected(emulator) as client:
        for index in range(20):
            await client.send(stream_id=f"lane-{index}", metadata=knobs("output_tokens=1"))
        seen = await collect(client, 20)
    created = [time for time, _, kind in seen if kind == "response.created"]
    assert created == [1.0] * 16 + [2.1] * 4
    assert emulator.stats.most_in_flight == 16
    assert emulator.stats.most_waiting == 4


async def test_thirty_two_names_for_life(autojump_clock: MockClock) -> None:
    async with connected(Emulator()) as client:
        for index in range(32):
            assert (await client.turn(stream_id=f"lane-{index}"))["type"] == "response.completed"
        refused = await client.turn(stream_id="one-more")
        assert refused == {
            "type": "error",
            "status": 400,
            "stream_id": "one-more",
            "error": {
                "type": "invalid_request_error",
                "code": "websocket_stream_limit_reached",
                "message": "This WebSocket connection has reached its maximum number of distinct stream IDs (32). "
                "Reuse an existing stream_id or open a new WebSocket connection.",
                "param": "stream_id",
            },
        }
        assert (await client.turn(stream_id="lane-7"))["type"] == "response.completed"
        assert (await client.turn())["type"] == "response.completed"


async def test_a_fork_needs_its_parent_when_it_starts(autojump_clock: MockClock) -> None:
    settings = EmulatorSettings(latency=SLOW, lanes=Lanes.multi(in_flight=1))
    async with connected(Emulator(settings)) as client:
        parent = (await client.turn(stream_id="a"))["response"]["id"]
        await client.send(stream_id="a", previous_response_id=parent, input="advance")
        await client.send(stream_id="b", previous_response_id=parent, input="fork")
        assert (await client.rest())[-1]["type"] == "response.completed"
        late = (await client.rest())[-1]
        assert late["error"]["code"] == "previous_response_not_found"
        assert late["stream_id"] == "b"


async def test_a_client_that_leaves_stops_its_generations(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(latency=SLOW))
    async with connected(emulator) as client:
        for lane in ("a", "b"):
            await client.send(stream_id=lane, metadata=knobs("output_tokens=1000"))
        while (await client.receive())["type"] != "response.output_text.delta":
            pass
        await client.ws.aclose()
    assert emulator.stats.abandoned == 2
    assert emulator.stats.open_connections == 0
    assert autojump_clock.current_time() < 10


async def test_the_connection_limit_comes_with_age(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(max_age=1500))
    async with connected(emulator) as client:
        assert (await client.turn())["type"] == "response.completed"
        assert await client.receive() == {
            "type": "error",
            "status": 400,
            "error": {
                "type": "invalid_request_error",
                "code": "websocket_connection_limit_reached",
                "message": "Responses websocket connection limit reached (25 minutes). "
                "Create a new websocket connection to continue.",
            },
        }
        with pytest.raises(ConnectionClosed) as caught:
            await client.receive()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1000
    assert emulator.stats.longest_connection == pytest.approx(1500)
    assert emulator.stats.limit_closes == 1


async def test_age_cuts_a_response_short(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(max_age=30, latency=SLOW))
    async with connected(emulator) as client:
        await client.send(metadata=knobs("output_tokens=1000"))
        last = (await client.rest())[-1]
        assert "reached (30 seconds)" in last["error"]["message"]
        with pytest.raises(ConnectionClosed):
            await client.receive()
    assert autojump_clock.current_time() == pytest.approx(30)


async def test_a_ping_while_it_closes_is_harmless(autojump_clock: MockClock) -> None:
    """The client has not seen the close yet; the library would answer the ping, and may not any more."""
    emulator = Emulator(EmulatorSettings(max_age=30))
    near, far = memory_stream_pair()
    client = WSConnection(ConnectionType.CLIENT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(emulator.handle, far)
        await near.send_all(client.send(Request(host="localhost", target="/v1/responses")))
        client.receive_data(bytes(await near.receive_some()))
        assert isinstance(next(client.events()), AcceptConnection)
        await trio.sleep(30.5)
        assert emulator.stats.limit_closes == 1
        await near.send_all(client.send(Ping()))
    assert trio.current_time() < 35


async def test_a_message_over_the_cap_closes_with_1009(autojump_clock: MockClock) -> None:
    async with connected(Emulator(EmulatorSettings(frame_cap=5000))) as client:
        assert (await client.turn(input="x" * 4000))["type"] == "response.completed"
        await client.send(input="x" * 6000)
        with pytest.raises(ConnectionClosed) as caught:
            await client.receive()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 1009


async def test_a_client_that_does_not_answer_the_close_is_left(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(max_age=10))
    async with connected(emulator) as client:
        client.ws._reader_running = False  # plays dead: reads no more, answers no close
        await client.ws._send_channel.aclose()
        await trio.sleep(20)
        assert emulator.stats.open_connections == 0
        await client.ws._stream.aclose()


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\x81\x82abcd\xff\xff", b"\x81\x02hi"])
async def test_broken_frames_end_the_connection_alone(autojump_clock: MockClock, garbage: bytes) -> None:
    emulator = Emulator(EmulatorSettings(latency=SLOW))
    async with connected(emulator) as client:
        await client.send(metadata=knobs("output_tokens=1000"))
        await client.receive()
        await client.ws._stream.send_all(garbage)
        assert (await client.until_closed())[1] in (1002, 1007, 1006)
    async with connected(emulator) as client:
        assert (await client.turn())["type"] == "response.completed"


async def test_late_steering_is_known_for_a_while(autojump_clock: MockClock) -> None:
    async with connected(Emulator()) as client:
        ids = [(await client.turn(metadata=knobs("deltas=1")))["response"]["id"] for _ in range(258)]
        for target, code in ((ids[0], "response_not_found"), (ids[-1], "response_already_completed")):
            await client.send(type="response.steer", previous_response_id=target, input="x")
            assert (await client.receive())["error"]["code"] == code


async def test_pings_are_answered(autojump_clock: MockClock) -> None:
    async with connected(Emulator(EmulatorSettings(latency=SLOW))) as client:
        await client.send()
        await client.ws.ping()
        assert autojump_clock.current_time() == 0

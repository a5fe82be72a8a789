"""The WebSocket front: a client speaks to the gateway as it would to the service."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio_websocket import ConnectionRejected

from pool.emulator import EmulatorSettings, context_digest
from pool.settings import Lanes
from scheduler.gateway.settings import GatewaySettings
from tests.emulator.client import Client, answers, connected, knobs, said, user
from tests.gateway.stage import KEY, Stage, staged, until

TURN = {"input": "hello", "metadata": knobs("calls=0")}


def digest(*items: Any) -> str:
    return context_digest(list(items))


def client_of(stage: Stage, **headers: str) -> Any:
    return connected(stage.gateway, headers=headers or KEY)


async def test_a_turn_is_told_as_the_service_tells_it(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage:
        async with client_of(stage) as client:
            await client.send(**TURN)
            events = await client.rest()
        async with connected(stage.emulator) as direct:
            await direct.send(**TURN)
            plain = await direct.rest()
        assert [event["type"] for event in events] == [event["type"] for event in plain]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert all("stream_id" not in event for event in events)
        assert said(events[-1]).endswith(digest(user("hello")))
        assert events[-1]["response"]["previous_response_id"] is None
        assert events[-1]["response"]["output"] == [
            event["item"] for event in events if event["type"] == "response.output_item.done"
        ]
        await trio.testing.wait_all_tasks_blocked()
        stage.assert_quiet()


async def test_a_lane_keeps_its_name(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, client_of(stage) as client:
        for name in ("main", "a.b-c_9"):
            await client.send(**TURN, stream_id=name)
            assert {event["stream_id"] for event in await client.rest()} == {name}


async def test_a_chain_of_deltas(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, client_of(stage) as client:
        items: list[Any] = [user("hello")]
        done = await client.turn(**TURN)
        for number in range(3):
            items += [*done["response"]["output"], user(f"more {number}")]
            parent = done["response"]["id"]
            done = await client.turn(input=f"more {number}", previous_response_id=parent)
            assert done["response"]["previous_response_id"] == parent
            assert said(done).endswith(digest(*items))
        assert stage.emulator.stats.deltas == 3


async def test_every_response_that_was_served_stays_a_parent(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage:
        async with client_of(stage) as client:
            first = await client.turn(**TURN)
            parent = first["response"]["id"]
            await client.turn(input="on the same lane", previous_response_id=parent)
            again = await client.turn(input="again", previous_response_id=parent, stream_id="other")
            before = [user("hello"), *first["response"]["output"]]
            assert said(again).endswith(digest(*before, user("again")))
        await stage.network.cut()
        async with client_of(stage) as client:  # another connection, and other sockets upstream
            again = await client.turn(input="later", previous_response_id=parent)
            assert said(again).endswith(digest(*before, user("later")))


async def test_a_failed_turn_leaves_its_parent_where_it_was(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, client_of(stage) as client:
        parent = (await client.turn(**TURN))["response"]["id"]
        wrong = [{"type": "function_call_output", "call_id": "call_x", "output": "?"}]
        error = await client.turn(input=wrong, previous_response_id=parent)
        assert error["type"] == "error"
        assert error["error"]["message"].startswith("No tool call found")
        done = await client.turn(input="go on", previous_response_id=parent)
        assert done["type"] == "response.completed"


async def test_tools_and_their_outputs(autojump_clock: trio.abc.Clock) -> None:
    tool = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
    async with staged() as stage, client_of(stage) as client:
        done = await client.turn(input="go", tools=[tool], metadata=knobs("calls=2"))
        items: list[Any] = [user("go")]
        while outputs := answers(done["response"]["output"]):
            items += [*done["response"]["output"], *outputs]
            done = await client.turn(
                input=outputs,
                previous_response_id=done["response"]["id"],
                tools=[tool],
                metadata=knobs("calls=2"),
            )
            assert done["response"]["metadata"]["context"] == digest(*items)
        assert len(items) == 5


async def test_a_warm_up_is_a_parent(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, client_of(stage) as client:
        await client.send(**TURN, generate=False)
        events = await client.rest()
        assert events[0]["type"] == "response.created"
        assert events[-1]["type"] == "response.completed"
        assert events[-1]["response"]["output"] == []
        done = await client.turn(
            input=[], previous_response_id=events[-1]["response"]["id"], metadata=knobs("calls=0")
        )
        assert said(done).endswith(digest(user("hello")))
        assert stage.emulator.stats.warm_ups == 1


async def test_lanes_run_at_once_and_each_in_order(autojump_clock: trio.abc.Clock) -> None:
    server = EmulatorSettings(latency="base=1,output=0.01")
    async with staged(server) as stage, client_of(stage) as client:
        began = trio.current_time()
        for number in range(3):
            for lane in ("a", "b", None):
                await client.send(
                    **{**TURN, "input": f"{lane} {number}"}, **({"stream_id": lane} if lane else {})
                )
        told: dict[Any, list[str]] = {"a": [], "b": [], None: []}
        running: set[Any] = set()
        while sum(map(len, told.values())) < 9:
            event = await client.receive()
            lane = event.get("stream_id")
            if event["type"] == "response.created":
                assert lane not in running
                running.add(lane)
            elif event["type"] == "response.completed":
                running.remove(lane)
                told[lane].append(said(event))
        for lane, texts in told.items():
            expected = [digest(user(f"{lane} {number}")) for number in range(3)]
            assert [text.rpartition(":")[2] for text in texts] == expected
        assert trio.current_time() - began < 3 * 3


async def test_sixteen_at_a_time(autojump_clock: trio.abc.Clock) -> None:
    server = EmulatorSettings(latency="base=1")
    async with staged(server) as stage, client_of(stage) as client:
        for number in range(20):
            await client.send(**TURN, stream_id=f"lane-{number}")
        done = running = most = 0
        while done < 20:
            event = await client.receive()
            running += event["type"] == "response.created"
            if event["type"] == "response.completed":
                done, running = done + 1, running - 1
            most = max(most, running)
        assert most == 16


@pytest.mark.parametrize("name", ["", "with space", "x" * 257, "ü", 7])
async def test_a_bad_lane_name_is_refused_in_the_services_words(
    autojump_clock: trio.abc.Clock, name: Any
) -> None:
    async with staged() as stage:
        async with client_of(stage) as client:
            ours = await client.turn(**TURN, stream_id=name)
            assert (await client.turn(**TURN))["type"] == "response.completed"  # and the connection goes on
        async with connected(stage.emulator) as direct:
            assert ours == await direct.turn(**TURN, stream_id=name)


async def test_one_name_too_many(autojump_clock: trio.abc.Clock) -> None:
    settings = GatewaySettings(named_lanes=2)
    async with staged(settings=settings) as stage, client_of(stage) as client:
        for name in ("a", "b"):
            assert (await client.turn(**TURN, stream_id=name))["type"] == "response.completed"
        error = await client.turn(**TURN, stream_id="c")
        assert error["stream_id"] == "c"
        assert error["error"]["code"] == "websocket_stream_limit_reached"
        assert (await client.turn(**TURN, stream_id="a"))["type"] == "response.completed"
        assert (await client.turn(**TURN))["type"] == "response.completed"


@pytest.mark.parametrize(
    "message",
    [
        b"binary",
        "no json",
        "[1]",
        '"text"',
        "{}",
        '{"type":"session.update"}',
        '{"type":7}',
        '{"type":"response.create"}',
        '{"type":"response.create","model":7}',
        '{"type":"response.create","model":"m","input":7}',
        '{"type":"response.create","model":"m","input":"x","background":true}',
        '{"type":"response.create","model":"m","input":"x","colour":1}',
        '{"type":"response.create","model":"m","input":"x","previous_response_id":"resp_none","store":false}',
        '{"type":"response.steer","previous_response_id":"resp_none","input":"x"}',
        '{"type":"response.steer","input":"x"}',
        '{"type":"response.steer","previous_response_id":"resp_none","input":[]}',
    ],
)
async def test_what_the_service_refuses_is_refused_alike(
    autojump_clock: trio.abc.Clock, message: Any
) -> None:
    async with staged() as stage:
        got = []
        for server in (stage.emulator, stage.gateway):
            async with connected(server, headers=KEY) as client:
                await client.ws.send_message(message)
                got.append(await client.receive())
                assert (await client.turn(**TURN))["type"] == "response.completed"
        assert got[0] == got[1]


async def test_stream_true_is_tolerated(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, client_of(stage) as client:
        assert (await client.turn(**TURN, stream=True))["type"] == "response.completed"


async def test_the_servers_own_errors_come_as_they_are(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, client_of(stage) as client:
        error = await client.turn(**{**TURN, "metadata": knobs("fault=error,status=400")}, stream_id="x")
        assert error == {
            "type": "error",
            "status": 400,
            "stream_id": "x",
            "error": {
                "type": "invalid_request_error",
                "code": "invalid_value",
                "message": "Invalid value: the emulator was told to refuse this request.",
                "param": "input",
            },
        }
        await client.send(**{**TURN, "metadata": knobs("fault=failed,at=6")})
        events = await client.rest()
        assert events[0]["type"] == "response.created"
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["code"] == "server_error"


async def test_a_lost_socket_is_not_seen(autojump_clock: trio.abc.Clock) -> None:
    faults = "drop,at=3,times=2; forget,times=2; limit_create,times=1"
    async with staged(EmulatorSettings(faults=faults)) as stage, client_of(stage) as client:
        items: list[Any] = []
        parent = None
        for number in range(6):
            await client.send(input=f"turn {number}", previous_response_id=parent, metadata=knobs("calls=0"))
            events = await client.rest()
            items.append(user(f"turn {number}"))
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            assert said(events[-1]).endswith(digest(*items))
            items += events[-1]["response"]["output"]
            parent = events[-1]["response"]["id"]


async def test_a_response_that_breaks_off_after_it_spoke_has_failed(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(faults="drop,at=8,times=1")) as stage, client_of(stage) as client:
        await client.send(**TURN, stream_id="x")
        events = await client.rest()
        assert events[0]["type"] == "response.created"
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["stream_id"] == "x"
        assert events[-1]["response"]["id"] == events[0]["response"]["id"]
        assert events[-1]["response"]["status"] == "failed"
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert (await client.turn(**TURN))["type"] == "response.completed"


async def test_stored_responses_of_others_are_continued(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage:
        async with connected(stage.emulator) as direct:
            first = await direct.turn(**TURN, store=True)
        async with client_of(stage) as client:
            done = await client.turn(
                input="more", previous_response_id=first["response"]["id"], store=True, stream_id="s"
            )
            assert done["stream_id"] == "s"
            assert said(done).endswith(digest(user("hello"), *first["response"]["output"], user("more")))
            missing = await client.turn(input="more", previous_response_id="resp_none", store=True)
            assert missing["error"]["code"] == "previous_response_not_found"


async def test_a_single_lane_upstream_serves_many(autojump_clock: trio.abc.Clock) -> None:
    server = EmulatorSettings(lanes=Lanes.single(), latency="base=0.5")
    async with staged(server) as stage, client_of(stage) as client:
        for number in range(6):
            await client.send(**{**TURN, "input": f"n {number}"}, stream_id=f"l{number}")
        done: set[str] = set()
        while len(done) < 6:
            event = await client.receive()
            if event["type"] == "response.completed":
                number = event["stream_id"][1:]
                assert said(event).endswith(digest(user(f"n {number}")))
                done.add(number)


async def test_it_has_no_age_unless_it_is_given_one(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, client_of(stage) as client:
        parent = (await client.turn(**TURN))["response"]["id"]
        await trio.sleep(3 * 3600)
        assert (await client.turn(input="still", previous_response_id=parent))["type"] == "response.completed"
        assert stage.emulator.stats.limit_closes == 0
    async with staged(settings=GatewaySettings(socket_max_age=3600)) as stage, client_of(stage) as client:
        began = trio.current_time()
        events, code = await client.until_closed()
        assert [event["error"]["code"] for event in events] == ["websocket_connection_limit_reached"]
        assert "(60 minutes)" in events[0]["error"]["message"]
        assert (code, trio.current_time() - began) == (1000, 3600)


async def test_nobody_comes_in_without_a_key(autojump_clock: trio.abc.Clock) -> None:
    async with staged(policy="forward") as stage:
        with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True) as caught:
            async with connected(stage.gateway):
                raise AssertionError
        leaf: BaseException = caught.value
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        assert isinstance(leaf, ConnectionRejected)
        assert leaf.status_code == 401


async def test_a_wrong_key_is_refused_where_it_is_used(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(api_key="right")) as stage, client_of(stage) as client:
        error = await client.turn(**TURN)
        assert (error["type"], error["status"], error["error"]["code"]) == ("error", 401, "invalid_api_key")
        assert "sk-client" not in str(error)


async def test_a_client_that_leaves_takes_its_turns_along(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(latency="base=1,output=1")) as stage:
        async with client_of(stage) as client:
            for lane in ("a", "b"):
                await client.send(**TURN, stream_id=lane)
            await client.receive()
        await trio.sleep(120)
        stage.assert_quiet()


async def test_when_the_gateway_stops_turns_are_finished_first(autojump_clock: trio.abc.Clock) -> None:
    server = EmulatorSettings(latency="base=1")
    async with staged(server) as stage, client_of(stage) as idle, client_of(stage) as busy:
        await busy.send(**TURN)
        await until(lambda: len(stage.gateway.core.running) == 1)
        stage.gateway.stop()
        assert await idle.until_closed() == ([], 1001)
        await busy.send(**TURN, stream_id="late")
        events, code = await busy.until_closed()
        assert events[0]["error"]["code"] == "shutting_down"
        assert events[-1]["type"] == "response.completed"
        assert code == 1001


async def test_each_caller_has_its_own_memory(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage:
        async with client_of(stage, authorization="Bearer one") as one:
            parent = (await one.turn(**TURN))["response"]["id"]
        async with client_of(stage, authorization="Bearer two") as two:
            error = await two.turn(input="mine?", previous_response_id=parent)
            assert error["error"]["code"] == "previous_response_not_found"


async def hand_made(stage: Stage, head: bytes) -> trio.abc.Stream:
    """Say a head to the gateway, and return the client's end of the connection, on which nobody answers pings."""
    near, far = trio.testing.memory_stream_pair()
    stage.network.nursery.start_soon(stage.gateway.handle, far)
    await near.send_all(b"GET /v1/responses HTTP/1.1\r\nhost: localhost\r\n" + head + b"\r\n")
    return near


UPGRADE = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"


async def test_an_upgrade_that_is_no_handshake(autojump_clock: trio.abc.Clock) -> None:
    async with staged(policy="open") as stage:
        client = await hand_made(stage, UPGRADE)
        assert (await client.receive_some()).startswith(b"HTTP/1.1 400")
        await client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        stage.assert_quiet()


async def test_a_client_without_a_sign_of_life_is_let_go(autojump_clock: trio.abc.Clock) -> None:
    async with staged(policy="open") as stage:
        began = trio.current_time()
        client = await hand_made(stage, UPGRADE + b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
        got = b""
        while data := await client.receive_some():
            got += data
        assert b"101 Switching Protocols" in got
        assert b"\x03\xf3keepalive ping timeout" in got  # 1011
        assert 40 <= trio.current_time() - began <= 45
        await trio.testing.wait_all_tasks_blocked()
        stage.assert_quiet()


async def test_a_client_that_answers_pings_may_be_silent(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, client_of(stage) as client:
        await trio.sleep(1000)
        assert (await client.turn(**TURN))["type"] == "response.completed"


async def test_what_waits_is_bounded_and_its_client_not_forgotten(autojump_clock: trio.abc.Clock) -> None:
    settings = GatewaySettings(max_waiting=1024)
    server = EmulatorSettings(latency="base=100")  # longer than a client may be silent

    async def ask(client: Client) -> None:
        for number in range(8):
            await client.send(**{**TURN, "input": f"{number} {'x' * 1000}"})

    async with (
        staged(server, settings=settings) as stage,
        client_of(stage) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, client)
        for number in range(8):
            done = (await client.rest())[-1]
            assert said(done).endswith(digest(user(f"{number} {'x' * 1000}")))


async def test_a_socket_that_breaks_ends_its_turns(autojump_clock: trio.abc.Clock) -> None:
    async with staged(EmulatorSettings(latency="base=1,output=0.1"), policy="open") as stage:
        client = await hand_made(stage, UPGRADE + b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
        await client.receive_some()
        create = b'{"type":"response.create","model":"m","input":"x"}'
        masked = bytes((0x81, 0x80 | len(create), 0, 0, 0, 0)) + create
        await client.send_all(masked)
        while b"output_text.delta" not in await client.receive_some():
            pass
        await trio.aclose_forcefully(client)
        await trio.sleep(60)
        stage.assert_quiet()

"""What no decent server does: silence, nonsense, refusals without end. A turn ends in time, and alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pool.emulator import EmulatorSettings, Latency
from pool.errors import ConnectionLost, LaneOverflow, PoolError, RemoteProtocolError, ResponseFailed
from pool.settings import Lanes, PoolSettings
from pool.wire.codec import to_json
from pool.wire.events import ServerEvent
from scheduler.request import ENCRYPTED_REASONING
from scheduler.settings import SchedulerSettings
from scheduler.turns import TurnRequest
from tests.support.scripted import ScriptedServer, Socket, message
from tests.support.world import asking, take, world

ASK = TurnRequest(model="m")
STREAMING = pytest.mark.parametrize("streaming", [False, True])
NO_ENCRYPTION = "Encrypted content is not supported with this model."


async def ignore(event: ServerEvent) -> None:
    await trio.lowlevel.checkpoint()


@STREAMING
@pytest.mark.parametrize("at", [0, 4])
async def test_a_server_that_falls_silent(autojump_clock: MockClock, at: int, streaming: bool) -> None:
    async with world(server=EmulatorSettings(faults=f"stall,at={at},create=3")) as w:  # the socket lives on
        conversation, neighbour = w.scheduler.conversation(), w.scheduler.conversation()
        await take(conversation, "one")
        await take(neighbour, "one")
        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: take(conversation, "two", on_event=ignore if streaming else None))
                await trio.sleep(800)
                assert w.pool.stats().leased_lanes == 1
                await take(neighbour, "two")
        reason = "lost in mid-response" if at else "lost after the send"
        assert w.scheduler.stats().retries == {reason: 1}
        assert neighbour.placements[-1].reason == "hot"
        # A connection on which one response stalls may well stall the next: the second try goes elsewhere.
        assert conversation.placements[-1].connection != conversation.placements[0].connection
        await trio.sleep(60)
        w.assert_quiet()


async def test_a_slow_server_is_not_a_silent_one(autojump_clock: MockClock) -> None:
    pool = PoolSettings(stall_timeout=30, min_idle=0)
    async with world(server=EmulatorSettings(faults="drip,seconds=25,at=0"), pool=pool) as w:
        turn = await take(w.scheduler.conversation(), "one", asking("calls=0 deltas=20"))
        assert turn.attempts == 1
        assert turn.seconds > 500


@STREAMING
async def test_a_caller_who_is_too_slow_loses_the_turn_alone(
    autojump_clock: MockClock, streaming: bool
) -> None:
    server = EmulatorSettings(latency=Latency(output=0.01))
    pool = PoolSettings(lane_events=20, max_connections=1)
    async with world(server=server, pool=pool) as w:
        slow, quick = w.scheduler.conversation(), w.scheduler.conversation()
        await take(slow, "one")
        await take(quick, "one")
        before = slow.transcript

        async def dawdle(event: ServerEvent) -> None:
            await trio.sleep(0.5)

        async def be_slow() -> None:
            with pytest.raises(LaneOverflow):
                await slow.turn("two", asking("calls=0 deltas=100 output_tokens=100"), on_event=dawdle)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_slow)
            nursery.start_soon(
                lambda: take(
                    quick,
                    "two",
                    asking("calls=0 deltas=100 output_tokens=100"),
                    on_event=ignore if streaming else None,
                )
            )
        assert slow.transcript == before
        await trio.sleep(2)
        w.assert_quiet()
        await take(slow, "two")
        assert slow.placements[-1].reason == "replay:failed"
        assert quick.placements[-1].reason == "hot"
        assert w.pool.stats().opened == 1


async def test_a_listener_that_fails(autojump_clock: MockClock) -> None:
    async with world() as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "one")

        async def fail(event: ServerEvent) -> None:
            await trio.lowlevel.checkpoint()
            raise LookupError(event.type)

        with pytest.raises(LookupError, match=r"response\.created"):
            await conversation.turn("two", asking(), on_event=fail)
        await trio.sleep(1)
        w.assert_quiet()
        await take(conversation, "two")
        assert w.pool.stats().opened == 1


async def test_a_model_without_encrypted_reasoning(autojump_clock: MockClock) -> None:
    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        if create["model"] == "plain" and ENCRYPTED_REASONING in create.get("include", ()):
            await socket.refuse(create, 400, NO_ENCRYPTION, type="invalid_request_error", param="include")
        else:
            await socket.answer(
                create, output=[{"type": "reasoning", "id": "rs_1", "summary": []}, message("x")]
            )

    server = ScriptedServer(answer)
    async with world(server=server) as w:
        plain = TurnRequest(model="plain")
        conversation = w.scheduler.conversation()
        turn = await conversation.turn("one", plain)
        assert turn.attempts == 2
        assert [item["type"] for item in conversation.transcript] == ["message", "message"]
        assert (await w.scheduler.conversation().turn("two", plain)).attempts == 1  # remembered for all
        await w.scheduler.conversation().turn("three", ASK)
        assert [ENCRYPTED_REASONING in create.get("include", ()) for create in server.seen] == [
            True,
            False,
            False,
            True,
        ]
        # The caller's own wish is the caller's: it is asked for once more and then refused for good.
        wish = TurnRequest(model="plain", options={"include": [ENCRYPTED_REASONING]})
        with pytest.raises(ResponseFailed, match="not supported"):
            await conversation.turn("four", wish)
        assert len(server.seen) == 6


@pytest.mark.parametrize(
    "error",
    [
        {"code": "previous_response_not_found"},
        {"code": "invalid_stream_id"},
        {"param": "stream_id"},
        {"message": NO_ENCRYPTION},
        {"message": "Item with id 'rs_1' not found.", "status": 404},
        {"code": "websocket_connection_limit_reached"},
        {"code": "websocket_stream_limit_reached"},
    ],
    ids=str,
)
async def test_a_refusal_without_end(autojump_clock: MockClock, error: dict[str, Any]) -> None:
    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        await socket.refuse(create, **{"status": 400, **error})

    server = ScriptedServer(answer)
    async with world(server=server) as w:
        with trio.fail_after(60), pytest.raises(ResponseFailed):
            await w.scheduler.conversation().turn("one", ASK)
        assert len(server.seen) <= SchedulerSettings().free_attempts
        if "websocket" not in str(error):
            assert len(server.seen) == 2  # what did not help once does not help twice
        w.assert_quiet()


@STREAMING
async def test_an_error_in_mid_response(autojump_clock: MockClock, streaming: bool) -> None:
    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        if len(server.seen) == 1:
            await socket.begin(create)
            await socket.say(create, "error", code="server_error", message="Oops.", param=None)
        else:
            await socket.answer(create)

    server = ScriptedServer(answer)
    async with world(server=server) as w:
        kinds: list[str] = []

        async def listen(event: ServerEvent) -> None:
            await trio.lowlevel.checkpoint()
            kinds.append(event.type)

        turn = await w.scheduler.conversation().turn("one", ASK, on_event=listen if streaming else None)
        assert turn.text == "done"
        assert turn.attempts == 2
        assert server.connections == 1
        if streaming:
            assert kinds == [
                *("response.created", "error", "warmline.restarted"),
                *("response.created", "response.completed"),
            ]


@STREAMING
@pytest.mark.parametrize(
    "nonsense",
    [
        {"type": "response.created"},
        {"type": "response.created", "response": []},
        {"type": "response.created", "response": {"id": "another"}},
        {"type": "response.completed", "response": {"id": None}},
        {"type": "response.completed", "response": {"id": "resp_1_1", "output": "text"}},
        {"type": "response.completed", "response": {"id": "resp_1_1", "output": [7]}},
        {"type": "response.completed", "response": {"id": "resp_1_1", "status": 3}},
        {"type": "response.output_item.done", "item": {}},
        {"type": "response.output_item.done", "output_index": "first", "item": {}},
        {"type": "response.completed", "response": {"id": "resp_1_1", "output": [{"type": "function_call"}]}},
        {"type": 7},
        {"stream_id": ["lane-01"]},
        [],
    ],
    ids=str,
)
async def test_nonsense_in_mid_response(autojump_clock: MockClock, nonsense: Any, streaming: bool) -> None:
    """The turn starts afresh elsewhere; the pool and its other turns do not care."""

    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        if len(server.seen) == 1:
            await socket.begin(create)
            lane = {"stream_id": create["stream_id"]} if isinstance(nonsense, dict) else {}
            said = {**lane, **nonsense} if isinstance(nonsense, dict) else nonsense
            await socket.ws.send_message(to_json(said).decode())
        else:
            await socket.answer(create)

    server = ScriptedServer(answer)
    async with world(server=server) as w:
        with trio.fail_after(60):
            turn = await w.scheduler.conversation().turn("one", ASK, on_event=ignore if streaming else None)
        assert turn.attempts == 2
        await trio.sleep(60)
        w.assert_quiet()
        await w.scheduler.conversation().turn("two", ASK)


async def test_nonsense_without_end(autojump_clock: MockClock) -> None:
    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        await socket.answer(create, output=[{"type": "function_call", "call_id": 7}])

    async with world(server=ScriptedServer(answer)) as w:
        conversation = w.scheduler.conversation()
        with trio.fail_after(60), pytest.raises(RemoteProtocolError):
            await conversation.turn("one", ASK)
        assert conversation.transcript == []
        w.assert_quiet()


async def test_events_that_nobody_has_heard_of(autojump_clock: MockClock) -> None:
    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        response_id = await socket.begin(create)
        await socket.say(create, "codex.rate_limits", limits={"a": 1})
        await socket.say(create, "response.new_thing.delta", delta="x")
        await socket.ws.send_message('{"type":"keepalive"}')
        # The items come one by one; the terminal event leaves them out.
        for index, text in ((1, "b"), (0, "a")):
            await socket.say(create, "response.output_item.done", output_index=index, item=message(text))
        await socket.end(create, response_id, output=[], usage=None)

    async with world(server=ScriptedServer(answer)) as w:
        kinds: list[str] = []

        async def listen(event: ServerEvent) -> None:
            await trio.lowlevel.checkpoint()
            kinds.append(event.type)
            if event.type == "codex.rate_limits":
                assert event.payload["limits"] == {"a": 1}

        conversation = w.scheduler.conversation()
        turn = await conversation.turn("one", ASK, on_event=listen)
        assert turn.text == "ab"
        assert kinds.count("response.new_thing.delta") == 1
        assert kinds.count("keepalive") == 1  # of no lane, but there was only one to be meant
        assert (await conversation.turn("two", ASK)).placement.reason == "hot"


async def test_a_server_that_ignores_lane_names(autojump_clock: MockClock) -> None:
    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        await socket.answer({name: value for name, value in create.items() if name != "stream_id"})

    async with world(server=ScriptedServer(answer), lanes=Lanes.multi()) as w:
        conversation = w.scheduler.conversation()
        for said in ("one", "two"):
            assert (await conversation.turn(said, ASK)).text == "done"
        assert conversation.placements[-1].reason == "hot"


async def test_a_server_that_hangs_up_on_everything(autojump_clock: MockClock) -> None:
    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        await socket.ws.aclose(1008, "policy")

    server = ScriptedServer(answer)
    async with world(server=server) as w:
        with trio.fail_after(60), pytest.raises(ConnectionLost) as caught:
            await w.scheduler.conversation().turn("one", ASK)
        assert (caught.value.code, caught.value.reason) == (1008, "policy")
        assert len(server.seen) == 6
        assert trio.current_time() > 5


async def test_many_turns_on_a_server_that_hangs_up(autojump_clock: MockClock) -> None:
    """Whatever happens, each turn ends and nothing is left behind."""

    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        if len(server.seen) % 3:
            await socket.cut()
        await socket.answer(create)

    server = ScriptedServer(answer)
    async with world(server=server, pool=PoolSettings(max_connections=3)) as w:
        ended = []

        async def turn(number: int) -> None:
            try:
                ended.append((await w.scheduler.conversation().turn(f"{number}", ASK)).text)
            except PoolError as error:
                ended.append(str(error))

        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                for number in range(60):
                    nursery.start_soon(turn, number)
        assert len(ended) == 60
        w.assert_quiet()

"""Steering a turn that runs: what the model hears, what the transcript holds, and what the caller is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pool.emulator import EmulatorSettings, Latency, context_digest
from pool.settings import Lanes, PoolSettings
from scheduler.conversation import Conversation
from scheduler.errors import SteerRefused
from scheduler.turns import Steered, Turn, TurnRequest
from tests.support.scripted import ScriptedServer, Socket
from tests.support.world import World, asking, input_of, outputs, take, world

SLOW = EmulatorSettings(latency=Latency(base=0.2, output=0.1))
LONG = asking("calls=0 output_tokens=50")
CALLING = asking("calls=1 deltas=30 output_tokens=50")


class Steering:
    """A turn in the background, and what was said to it."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.turn: Turn | None = None
        self.error: Exception | None = None
        self.said: list[Steered] = []
        self.refused: list[SteerRefused] = []

    async def run(self, given: str, request: TurnRequest) -> None:
        try:
            self.turn = await self.conversation.turn(given, request)
        except Exception as error:
            self.error = error

    async def say(self, text: str) -> None:
        try:
            self.said.append(await self.conversation.steer(text))
        except SteerRefused as error:
            self.refused.append(error)


async def steered(stage: World, *, request: TurnRequest = LONG, at: tuple[float, ...] = (1.0,)) -> Steering:
    """Take a first turn, then one that is steered at these times; return when it is over."""
    conversation = stage.scheduler.conversation()
    await take(conversation, "hello")
    steering = Steering(conversation)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(steering.run, "tell me", request)
        began = trio.current_time()
        for number, when in enumerate(at):
            await trio.sleep_until(began + when)
            nursery.start_soon(steering.say, f"shorter {number}")
    return steering


def said_in(turn: Turn) -> str:
    return str(turn.payload["metadata"]["context"])


async def test_a_steered_turn_ends_with_its_successor(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as stage:
        on = await steered(stage)
        turn, conversation = on.turn, on.conversation
        assert turn is not None
        assert (turn.status, turn.incomplete_reason) == ("completed", None)
        assert [one.outcome for one in on.said] == ["accepted"]
        assert [one.outcome for one in turn.steers] == ["taken"]
        assert turn.steers[0].id == on.said[0].id
        items = conversation.transcript
        assert [item.get("role") for item in items] == ["user", "assistant"] + ["user", "assistant"] * 2
        assert items[4]["content"] == "shorter 0"
        assert items[3]["status"] == "incomplete"
        assert said_in(turn) == context_digest(items[:5])
        assert turn.text.endswith(said_in(turn))
        assert (await take(conversation, "and?")).placement.reason == "hot"
        stage.assert_quiet()


async def test_its_usage_is_that_of_both(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as stage:
        on = await steered(stage)
        assert on.turn is not None
        last = on.turn.payload["usage"]
        assert on.turn.usage.output_tokens > last["output_tokens"]
        assert on.conversation._chain.tokens == last["total_tokens"]
        assert stage.scheduler.stats().turns == 2


async def test_the_next_replay_says_it_all_in_the_servers_order(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as stage:
        on = await steered(stage)
        await stage.network.cut()
        await wait_all_tasks_blocked()
        turn = await take(on.conversation, "and?")
        assert turn.placement.reason == "replay:lost"


async def test_several_are_taken_in_order_and_more_than_once(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as stage:
        request = asking("calls=0 output_tokens=50")
        on = await steered(stage, request=request, at=(1.0, 1.0, 3.0))
        assert on.turn is not None
        assert [one.outcome for one in on.turn.steers] == ["taken"] * 3
        items = on.conversation.transcript
        assert sum(item.get("status") == "incomplete" for item in items) == 2
        assert said_in(on.turn) == context_digest(items[:-1])
        await take(on.conversation, "and?")


@pytest.mark.parametrize("lost", [False, True])
async def test_what_a_tool_turn_was_told_waits_for_its_outputs(autojump_clock: MockClock, lost: bool) -> None:
    async with world(server=SLOW) as stage:
        on = await steered(stage, request=CALLING, at=(1.5,))
        turn = on.turn
        assert turn is not None
        assert turn.calls
        assert [one.outcome for one in turn.steers] == ["pending"]
        items = on.conversation.transcript
        assert (items[-2]["type"], items[-1]["content"]) == ("function_call", "shorter 0")
        if lost:
            await stage.network.cut()
            await wait_all_tasks_blocked()
        done = await take(on.conversation, outputs(turn))
        assert done.placement.kind == "delta" or lost
        await take(on.conversation, "and?")
        assert on.conversation.placements[-1].reason == "hot"


async def test_what_waits_at_the_server_goes_with_a_turn_that_is_given_up(autojump_clock: MockClock) -> None:
    """The abandoned create has taken it along: a delta after it would leave it out, so it is a replay."""
    async with world(server=SLOW) as stage:
        on = await steered(stage, request=CALLING, at=(1.5,))
        assert on.turn is not None
        with trio.move_on_after(0.1) as scope:
            await on.conversation.turn(outputs(on.turn), LONG)
        assert scope.cancelled_caught
        turn = await take(on.conversation, outputs(on.turn))
        assert turn.placement.reason == "replay:failed"
        await take(on.conversation, "and?")
        assert on.conversation.placements[-1].reason == "hot"


async def test_a_fork_of_a_turn_that_has_something_pending_replays(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as stage:
        on = await steered(stage, request=CALLING, at=(1.5,))
        assert on.turn is not None
        fork = on.conversation.fork()
        await take(fork, outputs(on.turn), CALLING)
        assert fork.placements[0].reason == "replay:forked"
        await take(on.conversation, outputs(on.turn), CALLING)
        assert on.conversation.placements[-1].reason == "hot"


async def test_what_is_said_before_the_turn_is_sent_goes_along(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as stage:
        stage.pool.pause()
        on = Steering(stage.scheduler.conversation())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on.run, "tell me", LONG)
            await wait_all_tasks_blocked()
            nursery.start_soon(on.say, "shorter")
            await wait_all_tasks_blocked()
            stage.pool.resume()
        assert on.turn is not None
        assert [one.outcome for one in on.said] == ["added"]
        assert [one.outcome for one in on.turn.steers] == ["added"]
        expected = [*input_of("tell me"), *input_of("shorter")]
        assert said_in(on.turn) == context_digest(expected)
        assert len(on.conversation.transcript) == 3


async def test_what_was_accepted_goes_along_when_the_turn_is_sent_again(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as stage:
        conversation = stage.scheduler.conversation()
        await take(conversation, "hello")
        on = Steering(conversation)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on.run, "tell me", LONG)
            await trio.sleep(1.0)
            await on.say("shorter")
            await stage.network.cut()
        assert on.turn is not None
        assert [one.outcome for one in on.said] == ["accepted"]
        assert [one.outcome for one in on.turn.steers] == ["added"]
        items = conversation.transcript
        assert [item["content"] for item in items[2:4]] == ["tell me", "shorter"]
        assert said_in(on.turn) == context_digest(items[:4])
        assert conversation.placements[-1].reason == "replay:lost"


async def test_it_is_refused_when_nothing_runs(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as stage:
        conversation = stage.scheduler.conversation()
        with pytest.raises(SteerRefused, match="no turn of conversation") as caught:
            await conversation.steer("shorter")
        assert caught.value.code == "response_not_active"


@pytest.mark.parametrize("accepted", [False, True])
async def test_the_answer_may_come_after_the_end(autojump_clock: MockClock, accepted: bool) -> None:
    """The steer and the terminal event cross: the turn waits for what the server makes of it."""

    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        if create["type"] == "response.create":
            response_id = await socket.begin(create)
            await trio.sleep(1.0)
            await socket.end(create, response_id)
            return
        await trio.sleep(1.0)
        target = create["previous_response_id"]
        if accepted:
            lane = {"stream_id": "lane-01"}
            steer = {"id": "steer_1", "previous_response_id": target}
            await socket.say(lane, "response.steer.accepted", steer=steer)
            await socket.answer(lane)
        else:  # there is no lane to name any more
            error = {"code": "response_already_completed", "message": "too late"}
            steer = {"input": create["input"], "previous_response_id": target}
            await socket.say({}, "response.steer.failed", steer=steer, error=error)

    async with world(server=ScriptedServer(answer), lanes=Lanes.multi()) as stage:
        on = Steering(stage.scheduler.conversation())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on.run, "tell me", LONG)
            await trio.sleep(0.5)
            nursery.start_soon(on.say, "shorter")
        assert trio.current_time() == pytest.approx(1.5)
        assert on.turn is not None
        assert [one.outcome for one in on.turn.steers] == ["taken" if accepted else "refused"]
        assert [error.code for error in on.refused] == ([] if accepted else ["response_already_completed"])
        assert len(on.conversation.transcript) == (4 if accepted else 2)
        assert (await on.conversation.turn("and?", LONG)).placement.reason == "hot"
        stage.assert_quiet()


async def test_a_model_that_cannot_be_steered_goes_on(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as stage:
        request = TurnRequest(model="gpt-5.4", options=LONG.options)
        on = await steered(stage, request=request)
        assert [error.code for error in on.refused] == ["steering_not_supported"]
        assert on.turn is not None
        assert (on.turn.status, len(on.turn.steers)) == ("completed", 1)
        assert on.turn.steers[0].outcome == "refused"
        assert len(on.conversation.transcript) == 4


async def test_single_lanes_cannot_be_steered(autojump_clock: MockClock) -> None:
    async with world(server=SLOW, lanes=Lanes.single()) as stage:
        on = await steered(stage)
        assert [error.code for error in on.refused] == ["steering_not_supported"]
        assert "single lanes" in str(on.refused[0])
        assert on.turn is not None
        assert on.turn.steers == ()


async def test_a_successor_that_cannot_begin_leaves_the_turn_incomplete(autojump_clock: MockClock) -> None:
    settings = EmulatorSettings(latency=SLOW.latency, faults="rate_limit,create=3")
    async with world(server=settings) as stage:
        on = await steered(stage)
        assert on.turn is not None
        assert (on.turn.status, on.turn.incomplete_reason) == ("incomplete", "steered")
        assert [one.outcome for one in on.turn.steers] == ["failed"]
        assert on.turn.steers[0].code == "successor_creation_failed"
        assert len(on.conversation.transcript) == 4
        assert (await take(on.conversation, "and?")).placement.reason == "hot"


@pytest.mark.parametrize("when", [0.1, 0.35, 0.6, 1.1, 1.6, 3.0])
async def test_cancelled_at_any_time_it_leaves_nothing_behind(autojump_clock: MockClock, when: float) -> None:
    async with world(server=SLOW) as stage:
        conversation = stage.scheduler.conversation()
        on = Steering(conversation)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on.run, "tell me", LONG)
            await trio.sleep(0.5)
            nursery.start_soon(on.say, "shorter")
            await trio.sleep(max(0.0, when - 0.5))
            nursery.cancel_scope.cancel()
        await take(conversation, "tell me")
        await trio.sleep(30.0)
        await take(conversation, "and?")
        stage.assert_quiet()


async def test_a_steerer_who_gives_up_does_not_disturb_the_turn(autojump_clock: MockClock) -> None:
    async with world(server=SLOW) as stage:
        conversation = stage.scheduler.conversation()
        on = Steering(conversation)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on.run, "tell me", LONG)
            await trio.sleep(0.1)  # sent, not begun
            with trio.move_on_after(0.05):
                await on.say("shorter")
        assert on.turn is not None
        assert on.turn.steers == ()
        assert len(conversation.transcript) == 2


async def test_a_server_that_does_not_know_steering(autojump_clock: MockClock) -> None:
    """It answers with an error that names no lane; the turn goes on."""

    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        if create["type"] == "response.steer":
            error = {"message": "Invalid value: 'response.steer'", "code": "invalid_value", "param": "type"}
            await socket.say({}, "error", status=400, error=error)
        else:
            response_id = await socket.begin(create)
            await trio.sleep(2.0)
            await socket.end(create, response_id)

    async with world(server=ScriptedServer(answer), lanes=Lanes.multi()) as stage:
        on = Steering(stage.scheduler.conversation())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on.run, "tell me", LONG)
            await trio.sleep(1.0)
            nursery.start_soon(on.say, "shorter")
        assert [error.code for error in on.refused] == ["invalid_value"]
        assert on.turn is not None
        assert on.turn.status == "completed"


async def test_a_server_that_never_answers_is_not_waited_for_for_ever(autojump_clock: MockClock) -> None:
    async def answer(socket: Socket, create: Mapping[str, Any]) -> None:
        if create["type"] == "response.create":
            response_id = await socket.begin(create)
            await trio.sleep(2.0)
            await socket.end(create, response_id)

    pool = PoolSettings(min_idle=0, max_connections=2)
    async with world(server=ScriptedServer(answer), lanes=Lanes.multi(), pool=pool) as stage:
        conversation = stage.scheduler.conversation()
        on = Steering(conversation)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on.run, "tell me", LONG)
            await trio.sleep(1.0)
            nursery.start_soon(on.say, "shorter")
        assert [error.code for error in on.refused] == ["response_already_completed"]
        assert on.turn is not None
        assert on.turn.status == "completed"
        assert trio.current_time() < 40.0
        again = await conversation.turn("and?", LONG)
        assert again.placement.connection == "c2", "a successor may still be on its way on that lane"

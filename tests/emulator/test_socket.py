"""A connection's memory: what continues, what is refused, what is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from pool.emulator import Emulator, EmulatorSettings, Latency, context_digest
from pool.settings import Lanes
from tests.emulator.client import TOOL, answers, connected, knobs, said, user


async def test_a_delta_sees_what_a_replay_sees(autojump_clock: MockClock) -> None:
    emulator = Emulator()
    async with connected(emulator) as client:
        first = (await client.turn(input="one"))["response"]
        second = await client.turn(input="two", previous_response_id=first["id"])
    transcript = [user("one"), *first["output"], user("two")]
    async with connected(emulator) as client:
        replay = await client.turn(input=transcript)
    assert said(second).endswith(f"context:{context_digest(transcript)}")
    assert said(replay) == said(second)
    assert emulator.stats.deltas == 1
    assert emulator.stats.replays == 2


async def test_cached_tokens_are_what_the_connection_remembered(autojump_clock: MockClock) -> None:
    async with connected(Emulator()) as client:
        first = (await client.turn(instructions="x" * 400))["response"]
        second = (await client.turn(instructions="x" * 400, previous_response_id=first["id"]))["response"]
        third = (await client.turn(instructions="y" * 400, previous_response_id=second["id"]))["response"]
    assert first["usage"]["input_tokens_details"]["cached_tokens"] == 0
    assert second["usage"]["input_tokens_details"]["cached_tokens"] > 100
    assert third["usage"]["input_tokens_details"]["cached_tokens"] == 0
    assert third["usage"]["input_tokens"] > second["usage"]["input_tokens"]


async def test_each_lane_remembers_its_latest_only(autojump_clock: MockClock) -> None:
    async with connected(Emulator()) as client:
        old = (await client.turn(stream_id="a"))["response"]["id"]
        new = (await client.turn(stream_id="a", previous_response_id=old))["response"]["id"]
        other = (await client.turn(stream_id="b"))["response"]["id"]
        refused = await client.turn(stream_id="b", previous_response_id=old)
        assert refused == {
            "type": "error",
            "status": 400,
            "stream_id": "b",
            "error": {
                "type": "invalid_request_error",
                "code": "previous_response_not_found",
                "message": f"Previous response with id '{old}' not found.",
                "param": "previous_response_id",
            },
        }
        # The parent that failed was not lane b's, so both latest ones are still there.
        assert (await client.turn(stream_id="a", previous_response_id=new))["type"] == "response.completed"
        assert (await client.turn(stream_id="b", previous_response_id=other))["type"] == "response.completed"


async def test_a_failed_continuation_evicts_its_parent(autojump_clock: MockClock) -> None:
    emulator = Emulator()
    bad = [{"type": "function_call_output", "call_id": "call_no", "output": "x"}]
    async with connected(emulator) as client:
        parent = (await client.turn())["response"]["id"]
        refused = await client.turn(previous_response_id=parent, input=bad)
        assert refused["error"]["message"] == (
            "No tool call found for function call output with call_id call_no."
        )
        assert refused["error"]["param"] == "input"
        again = await client.turn(previous_response_id=parent)
        assert again["error"]["code"] == "previous_response_not_found"
    assert emulator.stats.evictions == 1


async def test_a_failed_fork_leaves_the_parent(autojump_clock: MockClock) -> None:
    emulator = Emulator()
    bad = [{"type": "function_call_output", "call_id": "call_no", "output": "x"}]
    async with connected(emulator) as client:
        parent = (await client.turn(stream_id="a"))["response"]["id"]
        assert (await client.turn(stream_id="b", previous_response_id=parent, input=bad))["status"] == 400
        fork = await client.turn(stream_id="b", previous_response_id=parent)
        assert fork["type"] == "response.completed"
        assert (await client.turn(stream_id="a", previous_response_id=parent))["type"] == "response.completed"
    assert emulator.stats.forks == 1


async def test_stored_responses_hydrate_anywhere(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(latency=Latency(hydration=2.0)))
    async with connected(emulator) as client:
        stored = (await client.turn(store=True))["response"]["id"]
        assert (await client.turn())["type"] == "response.completed"
        fleeting = (await client.turn())["response"]["id"]
    async with connected(emulator) as client:
        hydrated = (await client.turn(previous_response_id=stored, input="more"))["response"]
        assert hydrated["previous_response_id"] == stored
        assert (await client.turn(previous_response_id=fleeting))["error"][
            "code"
        ] == "previous_response_not_found"
    assert emulator.stats.hydrations == 1
    assert autojump_clock.current_time() == pytest.approx(2.0)


async def test_a_warm_up_says_nothing_and_can_be_continued(autojump_clock: MockClock) -> None:
    async with connected(Emulator()) as client:
        await client.send(input="base", generate=False, tools=[TOOL])
        events = await client.rest()
        assert [event["type"] for event in events] == [
            "response.created",
            "response.in_progress",
            "response.completed",
        ]
        warm = events[-1]["response"]
        assert (warm["status"], warm["output"], warm["usage"]["output_tokens"]) == ("completed", [], 0)
        done = await client.turn(previous_response_id=warm["id"], input=[])
        assert said(done).endswith(context_digest([user("base")]))
        prewarmed = await client.turn(prompt_cache_options={"prewarm": True})
        assert prewarmed["response"]["output"] == []


async def test_a_warm_up_takes_a_transcript_whose_calls_are_unanswered(autojump_clock: MockClock) -> None:
    async with connected(Emulator()) as client:
        tool_turn = (await client.turn(tools=[TOOL]))["response"]
        moved = [user("hello"), *tool_turn["output"]]
    async with connected(Emulator()) as client:
        warm = (await client.turn(input=moved, generate=False))["response"]
        late = await client.turn(previous_response_id=warm["id"], input="no outputs")
        call_id = tool_turn["output"][0]["call_id"]
        assert late["error"]["message"] == f"No tool output found for function call {call_id}."
        warm = (await client.turn(input=moved, generate=False))["response"]
        done = await client.turn(previous_response_id=warm["id"], input=answers(moved))
        assert said(done).endswith(context_digest([*moved, *answers(moved)]))


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "response.cancel"}, "invalid_value", "type"),
        ({"typo": "response.create"}, "missing_required_parameter", "type"),
        ({"stream_id": ""}, "invalid_stream_id", "stream_id"),
        ({"stream_id": "a b"}, "invalid_stream_id", "stream_id"),
        ({"stream_id": "x" * 257}, "invalid_stream_id", "stream_id"),
        ({"stream_id": 7}, "invalid_stream_id", "stream_id"),
        ({"model": None}, "missing_required_parameter", "model"),
        ({"background": True}, "unsupported_parameter", "background"),
        ({"metadata": knobs("calls=many")}, "invalid_value", "metadata.emulator"),
        ({"frobnicate": 1}, "unknown_parameter", "frobnicate"),
    ],
)
async def test_what_is_wrong_is_said_and_the_socket_stays(
    autojump_clock: MockClock, event: dict[str, Any], code: str, param: str
) -> None:
    async with connected(Emulator()) as client:
        if "typo" in event:
            await client.ws.send_message("{}")
            refused = await client.receive()
        else:
            refused = await client.turn(**event)
        assert (refused["error"]["code"], refused["error"]["param"]) == (code, param)
        assert "stream_id" not in refused
        assert (await client.turn(stream=True))["type"] == "response.completed"


@pytest.mark.parametrize("message", ["{", "[]", "7", b"{}", '{"type":"response.create"}'])
async def test_nonsense_is_an_error_event(autojump_clock: MockClock, message: str | bytes) -> None:
    async with connected(Emulator()) as client:
        await client.ws.send_message(message)
        assert (await client.receive())["status"] == 400
        assert (await client.turn())["type"] == "response.completed"


async def test_a_default_script_steers_those_that_do_not(autojump_clock: MockClock) -> None:
    async with connected(Emulator(EmulatorSettings(default_script="calls=2 deltas=3"))) as client:
        tool_turn = (await client.turn(tools=[TOOL]))["response"]
        assert tool_turn["output"][0]["type"] == "function_call"
        second = await client.turn(
            tools=[TOOL], previous_response_id=tool_turn["id"], input=answers(tool_turn["output"])
        )
        assert second["response"]["output"][0]["type"] == "function_call"
        assert said(await client.turn(tools=[TOOL], metadata=knobs("calls=0")))


async def test_single_lanes_refuse_names_and_queue(autojump_clock: MockClock) -> None:
    settings = EmulatorSettings(lanes=Lanes.single(), latency=Latency(base=1.0))
    async with connected(Emulator(settings)) as client:
        refused = await client.turn(stream_id="a")
        assert refused["error"]["message"] == "Unsupported parameter: stream_id"
        assert refused["error"]["param"] == "stream_id"
        await client.send(input="one")
        await client.send(input="two")
        one, two = await client.rest(), await client.rest()
        assert said(one[-1]).endswith(context_digest([user("one")]))
        assert said(two[-1]).endswith(context_digest([user("two")]))
    assert autojump_clock.current_time() == pytest.approx(2.0)


async def test_compaction_shortens_the_remembered_context(autojump_clock: MockClock) -> None:
    management = [{"type": "compaction", "compact_threshold": 60}]
    async with connected(Emulator()) as client:
        first = (await client.turn(context_management=management, input="x" * 100))["response"]
        assert first["output"][0]["type"] == "message"
        second = (
            await client.turn(
                context_management=management, input="y" * 100, previous_response_id=first["id"]
            )
        )["response"]
        kinds = [item["type"] for item in second["output"]]
        assert kinds == ["compaction", "message"]
        assert second["metadata"]["context"] == context_digest(
            [user("x" * 100), *first["output"], user("y" * 100)]
        )
        third = await client.turn(previous_response_id=second["id"], input="z")
        window = [*second["output"], user("z")]
        assert said(third).endswith(context_digest(window))
        replayed = await client.turn(input=window)
        assert said(replayed) == said(third)


async def test_compaction_does_not_make_the_model_lose_count(autojump_clock: MockClock) -> None:
    management = [{"type": "compaction", "compact_threshold": 80}]
    fields: dict[str, Any] = {"context_management": management, "tools": [TOOL], "metadata": knobs("calls=6")}
    turns, compactions = 0, 0
    async with connected(Emulator()) as client:
        response = (await client.turn(**fields))["response"]
        while outputs := answers(response["output"], "word " * 20):
            turns += 1
            response = (await client.turn(input=outputs, previous_response_id=response["id"], **fields))[
                "response"
            ]
            compactions += response["output"][0]["type"] == "compaction"
    assert turns == 6
    assert compactions >= 2


async def test_reasoning_must_come_back_encrypted_or_stored(autojump_clock: MockClock) -> None:
    fields: dict[str, Any] = {"metadata": knobs("reasoning=1"), "include": ["reasoning.encrypted_content"]}
    emulator = Emulator()
    async with connected(emulator) as client:
        whole = (await client.turn(**fields))["response"]["output"]
        assert (await client.turn(input=[*whole, user("go on")]))["type"] == "response.completed"
        bare = (await client.turn(metadata=knobs("reasoning=1")))["response"]["output"]
        assert "encrypted_content" not in bare[0]
        refused = await client.turn(input=[*bare, user("go on")])
        assert refused["status"] == 404
        assert refused["error"]["message"].startswith(
            f"Item with id '{bare[0]['id']}' not found. Items are not"
        )
        forged = [{**whole[0], "encrypted_content": whole[0]["encrypted_content"][:-6]}, user("go on")]
        assert (await client.turn(input=forged))["error"]["code"] == "invalid_encrypted_content"
        stored = (await client.turn(store=True, metadata=knobs("reasoning=1")))["response"]["output"]
        by_id = [{"type": "item_reference", "id": item["id"]} for item in stored]
        answer = await client.turn(input=[*by_id, user("go on")])
        assert said(answer).endswith(context_digest([*stored, user("go on")]))
        assert (await client.turn(input=[{"type": "item_reference", "id": "msg_0"}]))["status"] == 404
        assert (await client.turn(input=[{"type": "item_reference"}]))["status"] == 400
        assert (await client.turn(input=[{"type": "compaction", "id": "cmp_1"}]))["status"] == 400

"""One response's events, from the plan to the last."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from pool.emulator import Emulator, EmulatorSettings, Latency, context_digest
from pool.emulator.request import checked_request
from pool.emulator.service import Service
from pool.emulator.turn import Turn
from tests.emulator.client import TOOL, answers, connected, knobs, said, user


def turn_of(**fields: Any) -> Turn:
    service = Service(EmulatorSettings(), unix_time=lambda: 1_800_000_000, nonce="n")
    request = checked_request({"model": "m", "input": "hello", **fields}, socket=True)
    return service.prepare(request, connection=1, memory=None).turn


def kinds_of(turn: Turn) -> list[str]:
    return [step.event["type"].removeprefix("response.") for step in turn.events()]


def test_the_events_of_a_text() -> None:
    assert kinds_of(turn_of(metadata=knobs("deltas=2"))) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_the_events_of_a_tool_turn_with_reasoning() -> None:
    turn = turn_of(
        tools=[TOOL], metadata=knobs("calls=1 parallel=2 deltas=2 reasoning=1"), reasoning={"summary": "auto"}
    )
    call = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert kinds_of(turn) == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        *["reasoning_summary_text.delta"] * 4,
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        *call,
        *call,
        "completed",
    ]
    assert turn.output[0]["summary"][0]["text"] == "**Looking at the context**"
    assert [item["type"] for item in turn.output] == ["reasoning", "function_call", "function_call"]
    assert len(turn.open_calls) == 2


def test_tokens_of_a_turn() -> None:
    turn = turn_of(metadata=knobs("output_tokens=60 deltas=6 reasoning=2 reasoning_tokens=10"))
    steps = list(turn.events())
    assert sum(step.tokens for step in steps) == pytest.approx(80)
    assert turn.terminal is not None
    usage = turn.terminal["usage"]
    assert usage["output_tokens"] == 80
    assert usage["output_tokens_details"] == {"reasoning_tokens": 20}
    assert usage["total_tokens"] == usage["input_tokens"] + 80


@pytest.mark.parametrize(("limit", "deltas"), [(5, 5), (1, 1), (24, 24), (23, 23)])
def test_a_text_ends_at_the_token_limit(limit: int, deltas: int) -> None:
    turn = turn_of(max_output_tokens=limit)
    kinds = kinds_of(turn)
    assert kinds.count("output_text.delta") == deltas
    assert turn.terminal is not None
    if limit < 24:
        assert kinds[-1] == "incomplete"
        assert turn.terminal["incomplete_details"] == {"reason": "max_output_tokens"}
        assert turn.output[0]["status"] == "incomplete"
    else:
        assert kinds[-1] == "completed"
    assert turn.terminal["usage"]["output_tokens"] == limit
    assert turn.remembered is not None


def test_a_tool_turn_ends_at_the_token_limit() -> None:
    turn = turn_of(
        tools=[TOOL], max_output_tokens=1, metadata=knobs("calls=1 parallel=3 deltas=9 output_tokens=9")
    )
    assert kinds_of(turn)[-1] == "incomplete"
    assert [item["status"] for item in turn.output] == ["incomplete"]


def test_stopping_between_calls() -> None:
    turn = turn_of(tools=[TOOL], metadata=knobs("calls=1 parallel=3"))
    events = turn.events()
    while next(events).event["type"] != "response.function_call_arguments.delta":
        pass
    turn.stop = True
    assert [step.event["type"] for step in events][-1] == "response.completed"
    assert len(turn.open_calls) == 1


def test_the_response_echoes_its_request() -> None:
    turn = turn_of(
        tools=[TOOL, {"type": "web_search"}],
        tool_choice="none",
        instructions="Be brief.",
        temperature=0.5,
        service_tier="fast",
        text={"format": None, "verbosity": "low"},
        reasoning={"effort": "high"},
        metadata={"mine": "1"},
        store=False,
    )
    base = turn.base
    assert base["tools"][0] == {"description": None, "strict": True, **TOOL}
    assert base["tools"][1] == {"type": "web_search"}
    assert (base["tool_choice"], base["instructions"], base["temperature"]) == ("none", "Be brief.", 0.5)
    assert base["service_tier"] == "priority"
    assert base["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert base["reasoning"] == {"effort": "high", "summary": None}
    assert base["metadata"] == {"mine": "1", "context": turn.context.digest}
    assert base["store"] is False


async def test_latency_is_paid_on_the_clock(autojump_clock: MockClock) -> None:
    latency = Latency(base=1.0, input=0.01, output=0.1)
    async with connected(Emulator(EmulatorSettings(latency=latency))) as client:
        first = (await client.turn(metadata=knobs("output_tokens=10 reasoning=1 reasoning_tokens=5")))[
            "response"
        ]
        spent = 1.0 + 0.01 * first["usage"]["input_tokens"] + 0.1 * 15
        assert autojump_clock.current_time() == pytest.approx(spent)
        # What the connection remembers is not paid again.
        second = (await client.turn(previous_response_id=first["id"], metadata=knobs("deltas=1")))["response"]
        usage = second["usage"]
        uncached = usage["input_tokens"] - usage["input_tokens_details"]["cached_tokens"]
        assert 0 < uncached < usage["input_tokens"]
        assert autojump_clock.current_time() == pytest.approx(spent + 1.0 + 0.01 * uncached + 0.1)


async def test_an_hour_of_tool_turns_takes_no_time(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(latency=Latency(base=60.0)))
    fields: dict[str, Any] = {"tools": [TOOL], "metadata": knobs("calls=50")}
    async with connected(emulator) as client:
        transcript: list[Any] = [user("hello")]
        response = (await client.turn(**fields))["response"]
        while outputs := answers(response["output"]):
            transcript += [*response["output"], *outputs]
            done = await client.turn(previous_response_id=response["id"], input=outputs, **fields)
            response = done["response"]
            assert response["metadata"]["context"] == context_digest(transcript)
    assert said(done).endswith(context_digest(transcript))
    assert emulator.stats.deltas == 50
    assert autojump_clock.current_time() == pytest.approx(51 * 60)


REQUIRED_BY_OPEN_RESPONSES = """
id object created_at completed_at status incomplete_details model previous_response_id instructions output error tools
tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs temperature
reasoning user usage max_output_tokens max_tool_calls store background service_tier metadata safety_identifier
prompt_cache_key
"""


def test_every_required_field_is_there() -> None:
    turn = turn_of(tools=[TOOL])
    for step in turn.events():
        if "response" in step.event:
            assert set(REQUIRED_BY_OPEN_RESPONSES.split()) <= set(step.event["response"])
    call = turn.output[0]
    assert {"type", "id", "call_id", "name", "arguments", "status"} <= set(call)
    assert {"type", "name", "description", "parameters", "strict"} <= set(turn.base["tools"][0])

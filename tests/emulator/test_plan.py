"""The scripted model's decisions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.emulator.context import Context
from pool.emulator.plan import Plan, cut, plan_turn
from pool.emulator.request import checked_request
from pool.emulator.script import parse_script
from pool.wire.codec import from_json
from pool.wire.refusal import Refused
from tests.emulator.client import TOOL, knobs, user

OTHER = {**TOOL, "name": "other"}


def plan(script: str = "", /, *, turns: int = 0, seed: int = 0, **fields: Any) -> Plan:
    """Return the plan after so many tool turns."""
    items: list[dict[str, Any]] = [user("hello")]
    for turn in range(turns):
        items.append({"type": "function_call", "call_id": f"c{turn}", "name": "look", "arguments": "{}"})
        items.append({"type": "function_call_output", "call_id": f"c{turn}", "output": "x"})
    metadata = knobs(script) if script else None
    request = checked_request({"model": "m", "input": items, "metadata": metadata, **fields}, socket=False)
    return plan_turn(Context().extended(items), request, seed=seed)


def names(made: Plan) -> list[str]:
    return [call.name for call in made.calls]


def test_without_knobs() -> None:
    assert "".join(plan().text).split()[-1].startswith("context:")
    assert names(plan(tools=[TOOL, OTHER])) == ["look"]
    assert plan(tools=[TOOL], turns=1).calls == ()
    assert plan(tools=[{"type": "web_search"}]).text


def test_so_many_tool_turns_then_the_answer() -> None:
    for turn in range(4):
        made = plan("calls=3 parallel=2", turns=turn, tools=[TOOL, OTHER])
        assert names(made) == ([["look", "other"], ["other", "look"], ["look", "other"], []][turn])
    assert plan("calls=0", tools=[TOOL]).text
    assert plan("calls=3").text  # there is nothing to call
    assert len(plan("calls=3 parallel=2", tools=[TOOL], parallel_tool_calls=False).calls) == 1


@pytest.mark.parametrize(
    ("choice", "turns", "expected"),
    [
        ("none", 0, []),
        ("auto", 0, ["look"]),
        ("required", 5, ["other"]),
        ({"type": "function", "name": "other"}, 3, ["other"]),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "other"}]},
            0,
            ["other"],
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "other"}]}, 1, []),
        ({"type": "web_search"}, 0, []),
    ],
)
def test_tool_choice(choice: Any, turns: int, expected: list[str]) -> None:
    assert names(plan(turns=turns, tools=[TOOL, OTHER], tool_choice=choice)) == expected


def test_the_same_context_and_seed_give_the_same_plan() -> None:
    assert plan("calls=2", tools=[TOOL]) == plan("calls=2", tools=[TOOL])
    assert plan() != plan(seed=1)
    assert (
        plan("calls=2", tools=[TOOL]).calls[0].call_id
        != plan("calls=2", tools=[TOOL], turns=1).calls[0].call_id
    )


@pytest.mark.parametrize("deltas", [1, 2, 3, 40, 200])
def test_exactly_so_many_deltas(deltas: int) -> None:
    answer = plan(f"deltas={deltas}")
    assert answer.deltas == deltas
    calls = plan(f"deltas={deltas} calls=1 parallel=2", tools=[TOOL])
    assert calls.deltas == max(2, deltas)
    assert all(set(from_json(call.arguments)) == {"path"} for call in calls.calls)
    shaped = plan(f"deltas={deltas}", text={"format": {"type": "json_object"}})
    assert shaped.deltas == deltas
    assert from_json("".join(shaped.text)) == {}


def test_tokens_and_lengths() -> None:
    assert plan("output_tokens=7").deltas == plan("output_tokens=7").output_tokens == 7
    assert plan("output_tokens=900 deltas=3").output_tokens == 900
    made = plan("reasoning=2 reasoning_tokens=50 output_tokens=9")
    assert (made.reasoning, made.reasoning_tokens, made.output_tokens) == (2, 100, 109)
    for size in (10, 1000, 1003):
        text = "".join(plan(f"text_bytes={size}").text)
        assert len(text) == max(size, len(text)) or size == 10
    assert len("".join(plan("text_bytes=100000").text)) == 100_000
    assert len("".join(plan("text_bytes=1000 deltas=1").text)) == 1000


def test_structured_answers() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    made = plan(text={"format": {"type": "json_schema", "name": "x", "schema": schema}})
    assert isinstance(from_json("".join(made.text))["n"], int)
    assert "".join(plan(text={"format": {"type": "text"}}).text).split()[-1].startswith("context:")
    assert plan(text={"format": "odd"}).text


@given(st.text(max_size=60), st.integers(1, 50) | st.none(), st.booleans())
def test_cutting_loses_nothing(text: str, pieces: int | None, padding: bool) -> None:
    made = cut(text, pieces, padding=padding)
    whole = "".join(made)
    assert whole.startswith(text)
    assert whole[len(text) :].strip(" ") == ""
    assert pieces is None or len(made) == pieces


@pytest.mark.parametrize(
    "text",
    [
        "calls",
        "calls=",
        "calls=x",
        "calls=-1",
        "parallel=0",
        "speed=3",
        "calls=1e3",
        "fault=",
        "fault=odd",
        "reasoning=99",
    ],
)
def test_knobs_that_cannot_be(text: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_script(text)
    assert caught.value.param == "metadata.emulator"
    assert text.partition("=")[0] in caught.value.message


def test_knobs() -> None:
    script = parse_script(
        " calls=20 parallel=2  output_tokens=60 reasoning=1 fault=drop,at=5,once fault=stall,seconds=1"
    )
    assert (script.calls, script.parallel, script.output_tokens, script.reasoning) == (20, 2, 60, 1)
    assert [fault.kind.value for fault in script.faults] == ["drop", "stall"]
    assert script.faults[0].once

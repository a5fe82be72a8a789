"""Settings that change between turns: noticed, counted, weighed, and complained of when it goes on."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from pool.emulator import EmulatorSettings, Latency
from pool.wire.codec import encoded
from scheduler.changes import changed
from scheduler.turns import TurnRequest
from scheduler.watch import AT_ONCE, BLOCK, REMEDIES, LossWatch
from tests.support.world import TOOL, asking, take, world

PLAIN = TurnRequest(
    model="m", instructions="Be brief.", tools=[TOOL], options={"reasoning": {"effort": "low"}}
)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": "n"}, ("model",)),
        ({"instructions": "Be long."}, ("instructions",)),
        ({"instructions": None}, ("instructions",)),
        ({"tools": []}, ("tools",)),
        ({"tools": [TOOL, {**TOOL, "name": "other"}]}, ("tools",)),
        ({"options": {"reasoning": {"effort": "high"}}}, ("reasoning",)),
        ({"options": {}}, ("reasoning",)),
        ({"options": {"reasoning": {"effort": "low"}, "metadata": {"a": "b"}}}, ()),
        ({"tools": (TOOL,)}, ()),
        ({"model": "n", "tools": []}, ("model", "tools")),
    ],
)
def test_what_costs_the_models_cache_is_noticed(change: dict[str, Any], what: tuple[str, ...]) -> None:
    assert changed(PLAIN, evolve(PLAIN, **change)) == what


def test_a_first_turn_changes_nothing() -> None:
    assert changed(None, PLAIN) == ()
    assert changed(PLAIN, PLAIN) == ()


def test_what_is_encoded_is_compared_as_it_is() -> None:
    one, other = (
        TurnRequest(model="m", options={"tools": encoded([{"name": name}])}) for name in ("one", "other")
    )
    assert changed(one, other) == ("tools",)
    assert changed(one, evolve(one)) == ()


def feed(watch: LossWatch, reason: str, count: int, *changes: str) -> list[str]:
    """Fill one block, `count` of its turns for this reason; return what is told."""
    told = []
    for number in range(BLOCK):
        losing = number < count
        told += watch.saw(reason if losing else "hot", changes if losing else ())
    return [str(one) for one in told]


def test_a_reason_that_goes_on_is_told_once() -> None:
    watch = LossWatch()
    assert feed(watch, "replay:stolen", 30) == []
    (told,) = feed(watch, "replay:stolen", 40)
    assert told.startswith("40 of the last 100 turns are no deltas (replay:stolen): lanes are scarce")
    assert feed(watch, "replay:stolen", 40) == []
    assert feed(watch, "replay:lost", 40) == []
    assert len(feed(watch, "replay:lost", 40)) == 1, "another reason is told by itself"


def test_what_comes_and_goes_is_not() -> None:
    watch = LossWatch()
    for count in (50, 10, 50, 19, 50, 0):
        assert feed(watch, "replay:stolen", count) == []


def test_changes_are_told_as_losses_of_the_cache() -> None:
    watch = LossWatch()
    feed(watch, "hot", 100, "tools")
    (told,) = feed(watch, "hot", 100, "tools")
    assert "lose the model's prompt cache (changed:tools)" in told
    assert "tool_choice" in told


@given(st.lists(st.sampled_from(["hot", "hydrated", "replay:new", "replay:compacted", "http:short"])))
def test_what_is_as_it_should_be_is_never_told(reasons: list[str]) -> None:
    watch = LossWatch()
    assert not any(watch.saw(reason, ()) for reason in reasons * 20)


def test_what_can_only_be_the_callers_doing_is_told_the_first_time_and_once() -> None:
    watch = LossWatch()
    (told,) = watch.saw("replay:rewritten", ())
    assert str(told).startswith("a turn is no delta (replay:rewritten): histories are edited")
    assert [feed(watch, "replay:rewritten", BLOCK) for _ in range(3)] == [[], [], []]


def test_every_complaint_says_what_would_help() -> None:
    for reason, remedy in REMEDIES.items():
        if reason in AT_ONCE:
            continue
        watch = LossWatch()
        changes = [reason.removeprefix("changed:")] if reason.startswith("changed:") else []
        feed(watch, reason, BLOCK, *changes)
        (told,) = feed(watch, reason, BLOCK, *changes)
        assert told.endswith(remedy)


async def test_changes_are_counted_and_keep_the_delta(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as stage:
        conversation = stage.scheduler.conversation()
        one = asking("calls=0")
        other = evolve(one, instructions="Be long.", tools=[])
        with caplog.at_level(logging.WARNING, "warmline.scheduler"):
            for number in range(2 * BLOCK):
                turn = await take(conversation, "go on", other if number % 2 else one)
                assert turn.placement.reason == ("hot" if number else "replay:new")
                assert number == 0 or turn.usage.cached_tokens == 0
        assert stage.scheduler.stats().changes == {"instructions": 199, "tools": 199}
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 2
        assert all("prompt cache" in text for text in told)


async def test_a_conversation_whose_prefix_changes_has_less_to_lose(autojump_clock: MockClock) -> None:
    latency = Latency(base=0.1, input=1e-4)
    async with world(server=EmulatorSettings(latency=latency)) as stage:
        steady, fickle = stage.scheduler.conversation(), stage.scheduler.conversation()
        stored = stage.scheduler.conversation(store=True)
        for number in range(8):
            text = "x" * 4000
            await take(steady, text)
            request = evolve(asking("calls=0"), instructions=f"Be brief, {number}.")
            await take(fickle, text, request)
            await take(stored, text, request)
        assert 0 < fickle._at.hold.worth < steady._at.hold.worth / 20
        assert stored._at.hold.worth > 0
        for _ in range(5):
            await take(fickle, "x", request)
        assert fickle._at.hold.worth > steady._at.hold.worth / 2, "it is forgiven"

"""A history that a caller gives as a whole: does it go on from the transcript?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from scheduler.chain import Chain, Past, encode_input
from scheduler.errors import InputInvalid
from scheduler.history import covered, mark
from tests.support.world import asking, input_of, outputs, take, tool_loop, world

Item = Mapping[str, Any]

HELLO: Item = {"type": "message", "role": "user", "content": "hello"}
SAID: Item = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "well", "annotations": [], "logprobs": []}],
}
THOUGHT: Item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
CALL: Item = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": "{}"}
SEEN: Item = {"type": "function_call_output", "call_id": "c1", "output": "seen"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (HELLO, {"role": "user", "content": "hello"}),
        (HELLO, {"role": "user", "content": [{"type": "input_text", "text": "hello"}]}),
        (SAID, {"role": "assistant", "content": "well"}),
        (SAID, {**SAID, "id": None, "status": None, "phase": None}),
        (CALL, {**CALL, "id": None, "status": "completed"}),
        (SEEN, {**SEEN, "id": "fco_9", "output": [{"type": "input_text", "text": "seen"}]}),
        (THOUGHT, {"type": "reasoning", "encrypted_content": "sealed", "summary": []}),
    ],
)
def test_what_the_model_is_shown_is_compared(ours: Item, theirs: Item) -> None:
    assert mark(ours) == mark(theirs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HELLO, {**HELLO, "content": "hello!"}),
        (HELLO, {**HELLO, "role": "developer"}),
        (HELLO, {**HELLO, "content": [{"type": "input_image", "image_url": "hello"}]}),
        (CALL, {**CALL, "arguments": '{"at": 1}'}),
        (SEEN, {**SEEN, "call_id": "c2"}),
        (THOUGHT, {**THOUGHT, "encrypted_content": "another"}),
        (SEEN, CALL),
    ],
)
def test_and_nothing_less(one: Item, other: Item) -> None:
    assert mark(one) != mark(other)


def cover(transcript: Sequence[Item], history: Sequence[Item]) -> int | None:
    known, goes_on = covered([mark(item) for item in transcript], [mark(item) for item in history])
    return known if goes_on else None


def test_a_history_goes_on_from_what_it_holds() -> None:
    assert cover([], [HELLO]) == 0
    assert cover([HELLO, SAID], [HELLO, SAID, HELLO]) == 2
    assert cover([HELLO, SAID], [HELLO, SAID]) == 2
    assert cover([HELLO, SAID], [HELLO]) is None
    assert cover([HELLO, SAID, HELLO], [HELLO, HELLO]) is None


def test_reasoning_may_be_missing_on_either_side() -> None:
    assert cover([HELLO, THOUGHT, SAID], [HELLO, SAID, HELLO]) == 2
    assert cover([HELLO, SAID], [HELLO, THOUGHT, SAID, HELLO]) == 3
    assert cover([HELLO, THOUGHT, SAID, THOUGHT], [HELLO, THOUGHT, SAID]) == 3
    assert cover([HELLO, THOUGHT, SAID], [HELLO, THOUGHT, HELLO]) is None


ITEMS = st.lists(st.sampled_from([HELLO, SAID, THOUGHT, CALL, SEEN]), max_size=8)


@given(ITEMS, ITEMS)
def test_what_extends_is_covered_whole(transcript: list[Item], more: list[Item]) -> None:
    known = cover(transcript, [*transcript, *more])
    assert known == len(transcript)


@given(ITEMS, ITEMS)
def test_what_is_covered_says_the_same_but_for_reasoning(transcript: list[Item], history: list[Item]) -> None:
    def spoken(items: Sequence[Item]) -> list[bytes]:
        return [mark(item) for item in items if item["type"] != "reasoning"]

    known = cover(transcript, history)
    if known is not None:
        assert spoken(history[:known]) == spoken(transcript)


def test_a_chain_takes_what_is_new_out_of_a_history() -> None:
    chain = Chain()
    new, parted = chain.follow([HELLO])
    assert ([item.text for item in new], parted) == ([item.text for item in encode_input([HELLO])], None)
    chain.commit(new, [THOUGHT, CALL], "resp_1", tokens=10)
    new, parted = chain.follow([HELLO, CALL, SEEN])
    assert ([item.text for item in new], parted) == ([item.text for item in encode_input([SEEN])], None)
    chain.commit(new, [SAID], "resp_2", tokens=20)
    other, parted = chain.follow([{**HELLO, "content": "good morning"}, THOUGHT, CALL])
    assert parted == 0
    assert '"id"' not in str([item.text for item in other])  # the server has not kept the items
    chain.commit(other, [SAID], "resp_3", tokens=5, rewritten=True)
    assert [item["type"] for item in chain.items] == ["message", "reasoning", "function_call", "message"]
    assert chain.items[0]["content"] == "good morning"
    assert chain.size == sum(len(item) for item in chain.encoded)
    again, parted = chain.follow([*chain.items, HELLO])
    assert (len(again), parted) == (1, None)


@pytest.mark.parametrize(
    ("history", "parted"),
    [
        ([HELLO], 1),  # shorter
        (
            [HELLO, {"type": "reasoning", "summary": []}, {**CALL, "arguments": "[]"}],
            2,
        ),  # what cannot be sent counts
        ([{**HELLO, "role": "developer"}, CALL], 0),
    ],
    ids=["shorter", "another call", "another beginning"],
)
def test_a_chain_says_where_a_history_parts_from_it(history: list[Item], parted: int) -> None:
    chain = Chain()
    chain.commit(encode_input([HELLO]), [CALL], "resp_1", tokens=10)
    assert chain.follow(history)[1] == parted


@pytest.mark.parametrize(
    ("items", "where"),
    [
        ([HELLO, {"role": "user", "content": "half \ud83d"}], "input[1]"),
        ([{"role": "user", "content": object()}], "input[0]"),
    ],
)
def test_what_has_no_json_form_is_refused_by_name(items: list[Item], where: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        Chain().follow(items)
    assert caught.value.where == where
    with pytest.raises(InputInvalid) as caught:
        encode_input(items)
    assert caught.value.where == where
    assert str(caught.value).startswith(f"{where}: ")


def test_an_item_must_be_an_item() -> None:
    with pytest.raises(InputInvalid, match=r"input\[1\]: str is no item"):
        Chain().follow([HELLO, "hello"])  # type: ignore[list-item]  # a caller's mistake


@pytest.mark.parametrize("store", [False, True])
async def test_callers_who_say_everything_still_send_deltas(autojump_clock: MockClock, store: bool) -> None:
    async with world() as stage:
        conversation = stage.scheduler.conversation(store=store)
        history: list[Item] = input_of("go")
        request = asking("calls=3 reasoning=1")
        while True:
            turn = await conversation.turn(history, request, whole=True)
            assert turn.payload["metadata"]["context"]
            history += [item for item in turn.output if item["type"] != "reasoning"]
            if not turn.calls:
                break
            history += outputs(turn)
        assert [placed.reason for placed in conversation.placements] == ["replay:new", "hot", "hot", "hot"]
        assert stage.emulator.stats.deltas == 3


async def test_a_rewritten_history_takes_the_transcripts_place(autojump_clock: MockClock) -> None:
    async with world() as stage:
        conversation = stage.scheduler.conversation()
        await tool_loop(conversation, asking("calls=2"), "go")
        edited = [*input_of("go, but quickly"), *conversation.transcript[1:]]
        fresh = stage.scheduler.conversation()
        wanted = (await take(fresh, edited + input_of("and?"))).payload["metadata"]["context"]
        turn = await conversation.turn(edited + input_of("and?"), asking("calls=0"), whole=True)
        assert turn.placement.reason == "replay:rewritten"
        assert turn.payload["metadata"]["context"] == wanted
        assert (await take(conversation, "go on")).placement.reason == "hot"
        assert conversation.transcript[0]["content"] == "go, but quickly"


async def test_a_conversation_begins_with_what_was_said_elsewhere(autojump_clock: MockClock) -> None:
    async with world() as stage:
        there = stage.scheduler.conversation(store=True)
        await tool_loop(there, asking("calls=1"), "go")
        stored = Past(items=there.encoded, tip=there.tip, tokens=100)
        here = stage.scheduler.conversation(store=True, past=stored)
        await take(here, "and?")
        assert here.placements[0].kind == "delta"
        again = stage.scheduler.conversation(past=Past(items=there.transcript))
        await take(again, "and?")
        assert again.placements[0].reason == "replay:resumed"
        assert again.generation == 0


async def test_a_rewrite_that_fails_leaves_the_transcript(autojump_clock: MockClock) -> None:
    async with world() as stage:
        conversation = stage.scheduler.conversation()
        await take(conversation, "go")
        before = conversation.transcript
        with pytest.raises(InputInvalid):
            await conversation.turn([{"role": "user", "content": "\udc00"}], asking(), whole=True)
        with pytest.raises(InputInvalid, match="metadata: character 0"):
            await conversation.turn("x", asking(metadata={"a": "\ud800"}))
        assert conversation.transcript == before
        assert (await take(conversation, "go on")).placement.reason == "hot"

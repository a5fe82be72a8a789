"""Marks: equal for one item however it is written, different for what a model could tell apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.wire.codec import encoded, to_json
from pool.wire.events import Encoded
from scheduler.gateway.marks import Marks, mark

SAID: dict[str, Any] = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "hi"}],
}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at":"x","n":1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "seen"}
SEARCH = {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "q"}}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SAID, {**SAID, "id": "msg_1", "status": "completed"}),
        (SAID, {"role": "assistant", "content": "hi"}),
        (SAID, {**SAID, "content": [{"type": "output_text", "text": "hi", "annotations": []}]}),
        (SAID, {**SAID, "content": [{"type": "output_text", "text": "hi", "logprobs": [{"token": "h"}]}]}),
        (SAID, {**SAID, "content": [{"type": "input_text", "text": "hi"}]}),
        (SAID, {**SAID, "phase": None}),
        (CALL, {**CALL, "id": "fc_1", "status": "completed"}),
        (CALL, {**CALL, "arguments": '{ "at": "x",\n "n": 1 }'}),
        (OUTPUT, {**OUTPUT, "id": "fco_1", "status": None}),
        (SEARCH, {**SEARCH, "status": "completed"}),
    ],
)
def test_ways_of_writing_one_item(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert mark(one) == mark(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SAID, {**SAID, "role": "user"}),
        (SAID, {"role": "assistant", "content": "hi "}),
        (SAID, {**SAID, "content": [*SAID["content"], {"type": "output_text", "text": ""}]}),
        (SAID, {**SAID, "content": [{"type": "refusal", "refusal": "hi"}]}),
        (SAID, {**SAID, "content": [{"type": "output_text", "text": "hi", "annotations": [{"url": "u"}]}]}),
        (SAID, {**SAID, "phase": "commentary"}),
        (CALL, {**CALL, "call_id": "c2"}),
        (CALL, {**CALL, "arguments": '{"at":"x","n":2}'}),
        (CALL, {**CALL, "arguments": '{"at":"x","n":1'}),
        (CALL, {**CALL, "type": "custom_tool_call"}),
        (OUTPUT, {**OUTPUT, "output": "Seen"}),
        (OUTPUT, {**OUTPUT, "output": [{"type": "input_text", "text": "other"}]}),
        (SEARCH, {**SEARCH, "id": "ws_2"}),
        (SEARCH, {**SEARCH, "a_new_field": 1}),
        ({"type": "item_reference", "id": "a"}, {"type": "item_reference", "id": "b"}),
    ],
)
def test_what_a_model_could_tell_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert mark(one) != mark(other)


def test_reasoning_counts_for_nothing_and_is_told_by_the_surest_sign() -> None:
    full, by_id = mark(THOUGHT), mark({**THOUGHT, "encrypted_content": None})
    assert full.digest == by_id.digest == b""
    assert full.evidence[1] == by_id.evidence[0]
    assert by_id.evidence[0] in full.evidence
    assert mark({**THOUGHT, "encrypted_content": "other"}).evidence[0] not in full.evidence
    said = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "because"}]}
    assert mark(said).evidence[0] in mark({**said, "id": "rs_9"}).evidence
    assert mark(said).evidence[0] not in full.evidence


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ITEMS = st.dictionaries(
    st.sampled_from(["type", "role", "content", "id", "call_id", "output", "arguments", "summary"])
    | st.text(),
    JSON,
)


@given(ITEMS)
def test_any_item_has_a_mark_and_none_depends_on_the_order_of_its_fields(item: dict[str, Any]) -> None:
    assert mark(item) == mark(dict(reversed(item.items())))
    assert Marks().of(encoded(item)) == mark(item)


def test_marks_are_remembered_by_the_text_and_only_so_many() -> None:
    marks = Marks(kept=2)
    texts = [encoded({"role": "user", "content": str(number)}) for number in range(3)]
    found = [marks.of(text) for text in texts]
    assert len(set(found)) == 3
    assert len(marks._known) == 2
    assert [marks.of(text) for text in texts] == found
    assert marks.of(texts[-1]) is marks.of(Encoded(texts[-1].text))


def test_what_is_no_item_has_no_mark() -> None:
    for wrong in (b"[]", b"1", b"{", b'"x"'):
        with pytest.raises(ValueError):
            Marks().of(Encoded(wrong))


@given(st.text(max_size=20), st.integers(0, 3))
def test_text_is_text_however_it_is_escaped(text: str, indent: int) -> None:
    import json

    item = {"role": "user", "content": text}
    try:
        plain = Encoded(to_json(item))
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text
    assert Marks().of(plain) == Marks().of(Encoded(json.dumps(item, indent=indent).encode()))

"""Marks: equal for one item however it is written, different for what a model could tell apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.wire import scan
from pool.wire.codec import encoded, from_json, to_json
from pool.wire.events import Encoded
from pool.wire.slices import Meter, at_once
from scheduler.gateway import marks as marks_module
from scheduler.gateway import shortening
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

    item = {"role": "user", "content": text}
    try:
        plain = Encoded(to_json(item))
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text
    assert Marks().of(plain) == Marks().of(Encoded(json.dumps(item, indent=indent).encode()))


# Long items


def spelled(item: dict[str, Any], **how: Any) -> Encoded:
    return Encoded(json.dumps({**item, "status": None}, **how).encode())


LETTERS = st.text(st.sampled_from('ab"\\\n/\u00e9\u2603\U0001f600'), min_size=0, max_size=120)


@given(LETTERS, LETTERS, st.integers(0, 3), st.integers(0, 3))
def test_a_long_item_has_one_mark_however_it_is_written(one: str, two: str, times: int, more: int) -> None:
    one, two = one * times, two * more
    items: list[dict[str, Any]] = [
        {**SAID, "content": [{"type": "output_text", "text": one}, {"type": "output_text", "text": two}]},
        {"role": "user", "content": one},
        {**CALL, "arguments": json.dumps({"at": one})},
        {**OUTPUT, "output": two},
        {"type": "image_generation_call", "id": "ig_1", "result": one},
        {**THOUGHT, "encrypted_content": one + "sealed", "summary": [{"type": "summary_text", "text": two}]},
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "WINDOW", 32)
        patch.setattr(scan, "_LEAST_WINDOW", 16)
        for module in (scan, marks_module, shortening):
            patch.setattr(module, "LONG", 100)
        patch.setattr(shortening, "_PIECE", 40)
        for item in items:
            expected = mark(item)
            for how in ({"indent": 1}, {"ensure_ascii": False}, {}):
                assert Marks().of(spelled(item, **how)) == expected
            told = Marks().of(encoded({**item, "one_more": 1}))
            assert item is items[-1] or told != expected


LONG_TEXT = "x" * 200_000


def test_long_items_are_told_apart_by_what_they_say() -> None:
    item = {"role": "user", "content": LONG_TEXT}
    assert mark(item) != mark({**item, "content": LONG_TEXT + "y"})
    assert mark(item) != mark({**item, "content": "y" + LONG_TEXT})
    assert mark(item) != mark({**item, "role": "system"})
    two = {"type": "x", "a": LONG_TEXT, "b": LONG_TEXT + "y"}
    assert mark(two) != mark({**two, "a": two["b"], "b": two["a"]})
    assert mark(two) == Marks().of(Encoded(json.dumps(dict(reversed(two.items()))).encode()))


def test_nothing_short_is_taken_for_what_stands_for_a_long_text() -> None:
    item = {"role": "user", "content": LONG_TEXT}
    (short, replaced) = at_once(shortening.shortened(to_json(item), Meter()))
    assert replaced
    assert short is not None
    assert len(short) < 100
    posing = from_json(short)
    assert mark(posing) != mark(item)
    # Nor beside another long text: an item with a NUL of its own is told as it stands.
    beside = {**item, "other": LONG_TEXT + "y"}
    posing = {**beside, "content": posing["content"]}
    assert mark(posing) != mark(beside)
    assert at_once(shortening.shortened(to_json(posing), Meter()))[0] is None


@pytest.mark.parametrize(
    "item",
    [
        b'{"role":"user","content":[' + b"{}," * 100_000 + b"{}]}",
        b'{"role":"user","content":"' + b"[]," * 30_000 + b'","a":[' + b"[]," * 30_000 + b"1]}",
        b'{"role":"user","a":[' + b",".join([b'"' + b"x" * 60_000 + b'"'] * 10) + b"]}",
        b'{"role":"user","content":"\\u0000' + b"x" * 100_000 + b'","a":"\\u0000"}',
        b"{" + b",".join(b'"k%d":1' % number for number in range(100_000)) + b"}",
    ],
    ids=range(5),
)
def test_what_stays_long_is_told_by_its_text(item: bytes) -> None:
    marks = Marks()
    assert marks.of(Encoded(item)) == marks.of(Encoded(item)) == Marks().of(Encoded(item))
    assert marks.of(Encoded(item)) != marks.of(Encoded(item[:-1] + b" }"))


def test_a_long_item_that_is_none_is_refused() -> None:
    for wrong in (
        b'["' + b"x" * 100_000 + b'"]',
        b'{"a":"' + b"x" * 100_000,
        b'{"a":' + b"[" * 700 + b"]" * 700 + b"}",
    ):
        with pytest.raises(ValueError):
            Marks().of(Encoded(wrong + b" " * 100_000))

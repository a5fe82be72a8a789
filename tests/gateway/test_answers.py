"""What is read of an answer before a caller of the gateway's own key sees it: new ids, and tokens used."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.wire.codec import from_json, to_json
from scheduler.gateway import answers
from scheduler.gateway.access import Operation
from scheduler.gateway.answers import AnswerTooLarge, LentAnswer, listed_ids, without
from scheduler.gateway.ownership import LONGEST_ID, Ownership

JSON = {"content-type": "application/json; charset=utf-8"}
EVENTS = {"content-type": "text/event-stream"}


def answer(
    *parts: bytes,
    headers: dict[str, str] = JSON,
    status: int = 200,
    family: str = "responses",
    size: int = 0,
    **operation: Any,
) -> LentAnswer:
    reading = LentAnswer(Operation(**operation), family, size)
    reading.begin(status, headers)
    for part in parts:
        reading.feed(part)
    if reading.kind == "json":
        reading.whole()
    return reading


def event(kind: str, **fields: Any) -> bytes:
    return b"data: %b\n\n" % to_json({"type": kind, **fields})


def test_a_response_with_its_items_and_containers_is_new() -> None:
    item = {"id": "ci_1", "container_id": "cntr_1", "outputs": [{"container_id": "cntr_2"}]}
    response = {"id": "resp_1", "object": "response", "output": [item], "usage": {"total_tokens": 7}}
    reading = answer(to_json(response), metered=True, creates=True)
    assert set(reading.ids) == {"resp_1", "ci_1", "cntr_1", "cntr_2"}
    assert reading.tokens == 7


@pytest.mark.parametrize("cut", [1, 7, 64, 1000])
def test_events_are_read_as_they_pass(cut: int) -> None:
    text = event("response.created", response={"id": "resp_1", "output": []})
    text += event("response.output_item.done", item={"id": "msg_1"})
    text += b": a comment\n\ndata: [DONE]\n\n" + event(
        "response.completed", response={"usage": {"total_tokens": 9}}
    )
    parts = [text[start : start + cut] for start in range(0, len(text), cut)]
    reading = answer(*parts, headers=EVENTS, metered=True, size=4000)
    assert set(reading.ids) == {"resp_1", "msg_1"}
    assert reading.tokens == 9


@pytest.mark.parametrize(
    "usage", [None, {}, {"total_tokens": None}, {"total_tokens": -5}, {"total_tokens": True}, 3]
)
def test_tokens_that_the_answer_does_not_say_are_estimated(usage: object) -> None:
    content = to_json({"usage": usage})
    assert answer(content, metered=True, size=400).tokens == (400 + len(content)) // 4
    assert answer(content, metered=False, size=400).tokens == 0
    assert answer(content, metered=True, size=400, status=500).tokens == 0
    packed = answer(content, headers={**JSON, "content-encoding": "gzip"}, metered=True, size=400)
    assert (packed.kind, packed.tokens) == ("opaque", (400 + len(content)) // 4)


def test_a_failed_request_has_created_nothing() -> None:
    assert answer(b'{"id":"file-1"}', status=404, family="files", creates=True).ids == []
    assert answer(b'{"id":"file-1"}', family="files", creates=True).ids == ["file-1"]


def test_a_list_makes_nothing_anybodys() -> None:
    listed = to_json({"object": "list", "data": [{"id": "conv_1"}, {"id": "conv_2"}]})
    for family in ("conversations", "responses", "files"):
        assert answer(listed, family=family, lists=True).ids == []
    assert answer(listed, family="vector_stores", names="vs_1").ids == []
    assert answer(listed, family="conversations", names="conv_0").ids == ["conv_1", "conv_2"]


def test_what_a_batch_or_an_upload_results_in_is_its_makers() -> None:
    batch = {"id": "batch_1", "output_file_id": "file-o", "error_file_id": None}
    assert answer(to_json(batch), family="batches", names="batch_1").ids == ["file-o"]
    upload = {"id": "upload_1", "file": {"id": "file-u"}}
    assert answer(to_json(upload), family="uploads", names="upload_1").ids == ["file-u"]


def test_a_list_is_cut_down_to_what_may_be_seen() -> None:
    listed = {
        "object": "list",
        "data": [{"id": "a"}, {"id": "b"}, "odd", {}],
        "first_id": "a",
        "last_id": "x",
    }
    assert listed_ids(listed) == ["a", "b"]
    shown = without(listed, ["a"])
    assert shown is not None
    assert from_json(shown) == {"object": "list", "data": [{"id": "b"}], "first_id": "b", "last_id": "b"}
    odds: tuple[Any, ...] = (None, [], {"data": None}, {"data": {"id": "a"}}, "x")
    for odd in odds:
        assert without(odd, ()) is None


def test_json_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MOST_KEPT", 10)
    with pytest.raises(AnswerTooLarge):
        answer(b"{" + b" " * 20 + b"}")
    reading = answer(
        b"data: " + b"x" * 100, headers=EVENTS, metered=True
    )  # it is passed on, and charged by size
    assert (reading.kind, reading.tokens) == ("opaque", 106 // 4)


@given(st.binary(max_size=200), st.sampled_from([JSON, EVENTS, {}]))
def test_no_answer_breaks_the_reading(content: bytes, headers: dict[str, str]) -> None:
    reading = answer(content, headers=headers, metered=True, creates=True)
    assert reading.tokens >= 0


def test_an_id_keeps_its_owner_and_the_longest_unused_go() -> None:
    ownership = Ownership(2)
    ownership.note("me", ["a", "b", "", "x" * (LONGEST_ID + 1)])
    ownership.note("you", ["a"])
    assert [ownership.owner_of(name) for name in "ab"] == ["me", "me"]
    assert ownership.owner_of("a") == "me"  # used after b
    ownership.note("you", ["c"])
    assert [ownership.owner_of(name) for name in "abc"] == ["me", None, "you"]
    assert len(ownership) == 2

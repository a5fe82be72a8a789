"""How a create is read, and how its events are put to a client: as they came, but for the gateway's own doing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.errors import (
    ConnectionLost,
    DialFailed,
    FrameTooLarge,
    LaneOverflow,
    PoolClosed,
    PoolSaturated,
    RemoteProtocolError,
    ResponseFailed,
    SettingsError,
)
from pool.wire.codec import event_of as event_from
from pool.wire.codec import from_json, parse, split_array, split_object, to_json
from pool.wire.events import Encoded, ServerEvent
from pool.wire.refusal import Refused
from scheduler.attempts import Restarted
from scheduler.errors import AdmissionQueueFull, DeadlineExceeded, InputInvalid, RetryBudgetExceeded
from scheduler.gateway.asked import read_create
from scheduler.gateway.errors import refused
from scheduler.gateway.frames import Voice, relabelled, sse
from scheduler.gateway.holding import Holding, OutputSurfaced

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def event(kind: str, **fields: Any) -> ServerEvent:
    text = to_json({"type": kind, **fields}).decode()
    return event_from(parse(text), text)


# Reading.


def test_what_is_not_acted_on_keeps_its_text() -> None:
    body = (
        b'{"model":"m", "input": [ {"role":"user","content":"\\u00e9"} ], "stream":true,"store":null,\n'
        b'"temperature":1.0,"unheard_of":{"b":1,"a":[ ]},"include":["reasoning.encrypted_content"]}'
    )
    asked = read_create(body)
    assert (asked.model, asked.stream, asked.store, asked.stored, asked.plain) == (
        "m",
        True,
        None,
        True,
        None,
    )
    assert asked.items == [Encoded(b'{"role":"user","content":"\\u00e9"}')]
    assert asked.members["temperature"].text == b"1.0"
    assert asked.members["unheard_of"].text == b'{"b":1,"a":[ ]}'
    assert asked.reasoning_included
    assert set(asked.members) == {"model", "store", "temperature", "unheard_of", "include"}
    request = asked.request()
    assert (request.model, request.says_store) == ("m", False)


@pytest.mark.parametrize(
    ("fields", "plain"),
    [
        ({"background": True}, "background"),
        ({"background": False, "conversation": None}, None),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, None),
    ],
)
def test_what_only_plain_http_serves(fields: dict[str, Any], plain: str | None) -> None:
    assert read_create(to_json({"model": "m", "input": "x", **fields})).plain == plain
    assert read_create(b'{"model":"m","prompt":{"id":"p"}}').plain == "prompt"


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), JSON))
def test_an_object_taken_apart_is_the_same_put_together(value: dict[str, Any]) -> None:
    parts = split_object(to_json(value))
    assert {name: from_json(part.text) for name, part in parts.items()} == value
    assert [from_json(part.text) for part in split_array(to_json(list(value.values())))] == list(
        value.values()
    )


# Telling.


DELTA = '{"type":"response.output_text.delta","stream_id":"lane-03","delta":"\\"stream_id\\":\\"lane-03\\""}'


@pytest.mark.parametrize(
    "text",
    [
        DELTA,
        '{"type":"x","delta":"a","stream_id":"lane-03"}',
        '{"stream_id":"lane-03","type":"x"}',
        '{"type": "x", "stream_id": "lane-03", "n": 1}',
        '{"type":"x","item":{"stream_id":"lane-03"},"stream_id":"lane-03"}',
        '{ "type":"x" , "stream_id" : "lane-03" }',
        '{"type":"x","item":{"stream_id":"lane-03"}, "stream_id" : "lane-03"}',
        '{"type":"x","said":"stream_id","stream_id":"lane-03"}',
    ],
)
@pytest.mark.parametrize("lane", [None, "main"])
def test_the_lane_is_the_client_s(text: str, lane: str | None) -> None:
    told = from_json(Voice(lane=lane).text(event_from(parse(text), text)))
    expected = from_json(text)
    expected.pop("stream_id")
    assert told == (expected if lane is None else {**expected, "stream_id": lane})


@given(
    st.none() | st.text(st.characters(codec="utf-8"), max_size=5),
    st.none() | st.just("resp_0"),
    st.sampled_from(["lane-01", None]),
    JSON,
    st.booleans(),
)
def test_a_response_is_told_alike_as_text_and_written_anew(
    given: str | None, parent: str | None, lane: str | None, value: Any, twice: bool
) -> None:
    metadata = {"previous_response_id": "mine", "stream_id": "mine"} if twice else {}
    response = {"id": "r", "previous_response_id": given, "metadata": metadata, "v": value}
    members = {"response": response, **({} if lane is None else {"stream_id": lane})}
    told = from_json(Voice(parent=parent).text(event("response.created", **members)))
    assert told == {"type": "response.created", "response": {**response, "previous_response_id": parent}}


@given(JSON, st.sampled_from(["lane-01", "l"]), st.none() | st.just("theirs"), st.booleans())
def test_no_value_is_mistaken_for_the_lane(value: Any, lane: str, theirs: str | None, first: bool) -> None:
    members = {"stream_id": lane, "v": value} if first else {"v": value, "stream_id": lane}
    text = relabelled(to_json({"type": "x", **members}).decode(), lane, theirs)
    if text is not None:
        told = from_json(text)
        assert told.pop("stream_id", None) == theirs
        assert told == {"type": "x", "v": value}


def test_deltas_are_passed_on_byte_by_byte() -> None:
    text = '{"type":"x","delta":"é  ","n":1.0}'
    assert Voice().text(event_from(parse(text), text)) == text.encode()
    assert sse("x", text.encode()) == b"event: x\ndata: " + text.encode() + b"\n\n"
    assert sse("x", b'{\n"a":1\r\n}') == b'event: x\ndata: { "a":1  }\n\n'


def test_the_response_names_the_parent_that_the_client_gave() -> None:
    response = {"id": "resp_2", "previous_response_id": "resp_1", "output": []}
    created = event("response.created", response=response, stream_id="lane-01")
    for parent in (None, "resp_0"):
        told = from_json(Voice(parent=parent).text(created))
        assert told["response"]["previous_response_id"] == parent
        assert "stream_id" not in told


def test_reasoning_that_was_not_asked_for_is_hidden() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    done = event("response.output_item.done", item=item, output_index=0)
    ended = event("response.completed", response={"id": "r", "status": "completed", "output": [item]})
    hiding = Voice(hides_reasoning=True)
    for one in (done, ended):
        assert b"sealed" in Voice().text(one)
        assert b"sealed" not in hiding.text(one)
        assert b"rs_1" in hiding.text(one)


# Holding back.

CREATED = event("response.created", response={"id": "r1"})
ADDED = event("response.output_item.added", output_index=0, item={"type": "message"})
WORD = event("response.output_text.delta", delta="a")
DONE = event("response.output_item.done", output_index=0, item={"type": "message", "content": []})
ENDED = event("response.completed", response={"id": "r1", "status": "completed", "output": []})
FAILED = event("response.failed", response={"id": "r1", "status": "failed"})
ERROR = event("error", status=500, error={"message": "no"})
AFRESH = Restarted(reason="lost")


def test_nothing_is_given_before_output_begins() -> None:
    holding = Holding()
    assert holding.take([CREATED]) == ()
    assert holding.take([ADDED]) == ()
    assert list(holding.take([WORD, WORD])) == [CREATED, ADDED, WORD, WORD]
    assert list(holding.take([WORD])) == [WORD]


def test_a_fresh_start_before_output_leaves_no_trace() -> None:
    holding = Holding()
    assert holding.take([CREATED, ADDED, FAILED]) == ()
    assert holding.take([AFRESH]) == ()
    assert holding.last_words is None
    assert list(holding.take([CREATED, WORD])) == [CREATED, WORD]


def test_a_fresh_start_after_output_is_too_late() -> None:
    holding = Holding()
    holding.take([CREATED, WORD, DONE])
    assert list(holding.take([ERROR, WORD])) == [WORD]
    with pytest.raises(OutputSurfaced):
        holding.take([AFRESH])
    assert holding.partial == {"id": "r1", "output": [{"type": "message", "content": []}]}


def test_the_last_words_are_released_last() -> None:
    holding = Holding()
    assert holding.take([CREATED, FAILED]) == ()
    assert list(holding.release()) == [CREATED, FAILED]
    assert list(holding.release()) == []


def test_output_that_the_end_leaves_out_is_put_there() -> None:
    holding = Holding()
    holding.take([CREATED, DONE, ENDED])
    *_, last = holding.finish()
    assert from_json(Voice().text(last))["response"]["output"] == [{"type": "message", "content": []}]


# Refusing.


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DialFailed("no", status=401), 401, "invalid_api_key"),
        (DialFailed("no", status=429, retry_after=3), 429, "upstream_unreachable"),
        (DialFailed("no"), 503, "upstream_unreachable"),
        (ConnectionLost("gone", sent=True), 502, "upstream_connection_lost"),
        (FrameTooLarge(size=9, limit=1), 413, "request_too_large"),
        (PoolSaturated(waiting=1, limit=1, state=""), 503, "server_is_overloaded"),
        (AdmissionQueueFull("turn", tenant="t", waiting=1, limit=1, state=""), 503, "server_is_overloaded"),
        (RetryBudgetExceeded(wait=5, limit=1), 503, "retry_budget_exceeded"),
        (DeadlineExceeded("queued", tenant="t", allowed=1, elapsed=1, turns=0), 504, "deadline_exceeded"),
        (PoolClosed("closed"), 503, "upstream_closed"),
        (LaneOverflow(events=1, size=1), 503, "client_too_slow"),
        (InputInvalid("input[0]", "is no JSON", "mend it"), 400, "invalid_value"),
        (SettingsError("key", "(hidden)", "is empty"), 502, "gateway_misconfigured"),
        (RemoteProtocolError("nonsense"), 502, "upstream_error"),
        (ResponseFailed("no", code="rate_limit_exceeded", started=True), 429, "rate_limit_exceeded"),
        (ResponseFailed("no", code="server_error"), 500, "server_error"),
        (Refused("no", status=418, code="teapot"), 418, "teapot"),
    ],
)
def test_every_error_has_a_status_and_a_code(error: Exception, status: int, code: str) -> None:
    told = refused(error)
    assert (told.status, told.code) == (status, code)
    assert set(told.body()["error"]) >= {"message", "type", "param", "code"}


def test_the_service_s_own_error_is_passed_on_whole() -> None:
    payload = {"error": {"message": "no", "type": "t", "code": "c", "param": "p", "more": [1], "headers": {}}}
    failure = ResponseFailed("no", code="c", kind="t", param="p", status=400, payload=payload, retry_after=2)
    told = refused(failure)
    assert told.body() == {"error": {"message": "no", "type": "t", "code": "c", "param": "p", "more": [1]}}
    assert told.headers == {"retry-after": "2"}


def test_the_end_is_told_when_the_turn_is_remembered() -> None:
    holding = Holding()
    assert list(holding.take([CREATED, DONE, ENDED])) == [CREATED, DONE]
    assert [event.type for event in holding.finish()] == ["response.completed"]
    assert list(holding.finish()) == []


def test_an_end_that_is_followed_by_a_successor_was_none() -> None:
    holding = Holding()
    holding.take([CREATED, DONE, ENDED])
    told = holding.take([CREATED, DONE])
    assert [event.type for event in told] == [
        "response.completed",
        "response.created",
        "response.output_item.done",
    ]

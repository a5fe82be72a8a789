"""Text to event and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.errors import LocalProtocolError, RemoteProtocolError
from pool.wire.codec import (
    decode,
    encode,
    encode_http_body,
    encode_parts,
    encoded,
    from_json,
    members,
    parse,
    to_json,
)
from pool.wire.events import (
    Encoded,
    ErrorEvent,
    OutputItemDone,
    RawClientEvent,
    ResponseCreate,
    ResponseEnded,
    ResponseStarted,
    ResponseSteer,
    ServerEvent,
    SteerEvent,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def text(**fields: Any) -> str:
    return json.dumps(fields)


# Server events.


@pytest.mark.parametrize("kind", ["response.created", "response.in_progress", "response.queued"])
def test_a_response_that_starts(kind: str) -> None:
    event = decode(text(type=kind, stream_id="lane-01", response={"id": "resp_1", "new": [1]}))
    assert isinstance(event, ResponseStarted)
    assert (event.response_id, event.stream_id, event.payload["response"]["new"]) == (
        "resp_1",
        "lane-01",
        [1],
    )


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_a_response_that_ends(status: str) -> None:
    kind = f"response.{status}"
    event = decode(text(type=kind, response={"id": "resp_1", "status": status, "output": [{}]}))
    assert isinstance(event, ResponseEnded)
    assert (event.response_id, event.status, event.stream_id) == ("resp_1", status, None)
    assert event.response == event.payload["response"]


def test_a_terminal_event_without_a_status_says_it_by_its_name() -> None:
    event = decode(text(type="response.completed", response={"id": "resp_1"}))
    assert isinstance(event, ResponseEnded)
    assert event.status == "completed"


def test_an_item_that_is_done() -> None:
    item = {"type": "message", "id": "msg_1", "unheard": {"of": 1}}
    event = decode(text(type="response.output_item.done", output_index=2, item=item))
    assert isinstance(event, OutputItemDone)
    assert (event.output_index, event.item) == (2, item)


def test_an_error_as_the_live_service_sends_it() -> None:
    event = decode(
        text(
            type="error",
            status=400,
            stream_id="main",
            error={
                "type": "invalid_request_error",
                "code": "previous_response_not_found",
                "message": "Previous response with id 'resp_abc' not found.",
                "param": "previous_response_id",
                "headers": {"retry-after": "2"},
            },
        )
    )
    assert isinstance(event, ErrorEvent)
    assert (event.status, event.code, event.kind, event.param, event.stream_id) == (
        400,
        "previous_response_not_found",
        "invalid_request_error",
        "previous_response_id",
        "main",
    )
    assert event.message == "Previous response with id 'resp_abc' not found."
    assert event.headers == {"retry-after": "2"}


def test_an_error_as_http_streams_have_it() -> None:
    event = decode(text(type="error", code="server_error", message="Boom", param=None, sequence_number=3))
    assert isinstance(event, ErrorEvent)
    assert (event.code, event.message, event.param, event.kind, event.status) == (
        "server_error",
        "Boom",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("the server gave no message", None, None, None)),
        ({"error": None}, ("the server gave no message", None, None, None)),
        ({"error": "text"}, ("the server gave no message", None, None, None)),
        (
            {"error": {"message": 7, "code": 42, "type": ["x"]}},
            ("the server gave no message", "42", "['x']", None),
        ),
        ({"error": {"message": "m"}, "status_code": 429}, ("m", None, None, 429)),
        ({"error": {"message": "m"}, "status": "429"}, ("m", None, None, None)),
    ],
)
def test_an_error_is_the_last_thing_to_be_strict_about(
    fields: dict[str, Any], expected: tuple[object, ...]
) -> None:
    event = decode(text(type="error", **fields))
    assert isinstance(event, ErrorEvent)
    assert (event.message, event.code, event.kind, event.status) == expected


def test_headers_of_an_error_are_found_in_either_place() -> None:
    outside = decode(text(type="error", headers={"a": "1"}, error={"headers": {"b": "2"}}))
    assert isinstance(outside, ErrorEvent)
    assert outside.headers == {"a": "1"}
    nonsense = decode(text(type="error", headers="a", error={"headers": [1]}))
    assert isinstance(nonsense, ErrorEvent)
    assert nonsense.headers == {}


@pytest.mark.parametrize("kind", ["accepted", "pending", "failed"])
def test_steering(kind: str) -> None:
    event = decode(text(type=f"response.steer.{kind}", steer={"id": "s", "previous_response_id": "resp_1"}))
    assert isinstance(event, SteerEvent)
    assert event.previous_response_id == "resp_1"
    bare = decode(text(type=f"response.steer.{kind}"))
    assert isinstance(bare, SteerEvent)
    assert bare.previous_response_id is None


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_nobody_has_heard_of_passes_through_whole(extra: dict[str, Any]) -> None:
    payload = {**extra, "type": "codex.rate_limits", "stream_id": "x"}
    event = decode(json.dumps(payload))
    assert type(event) is ServerEvent
    assert (event.type, event.stream_id) == ("codex.rate_limits", "x")
    assert event.payload == payload


@given(st.dictionaries(st.text().filter(lambda name: name not in ("type", "response")), JSON, max_size=4))
def test_unknown_fields_of_known_events_are_kept(extra: dict[str, Any]) -> None:
    extra.pop("stream_id", None)
    payload = {**extra, "type": "response.created", "response": {"id": "resp_1", **extra, "more": extra}}
    payload["response"]["id"] = "resp_1"
    assert decode(json.dumps(payload)).payload == payload


@pytest.mark.parametrize(
    "message",
    [
        "",
        "not json",
        "[1]",
        '"text"',
        "1",
        "null",
        "{}",
        '{"type": 1}',
        '{"type": null}',
        "[" * 100_000,
        b"\xff",
    ],
)
def test_a_message_that_is_no_event(message: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse(message)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "response.created"},
        {"type": "response.created", "response": None},
        {"type": "response.created", "response": []},
        {"type": "response.created", "response": {"id": 7}},
        {"type": "response.completed", "response": "text"},
        {"type": "response.completed", "response": {}},
        {"type": "response.completed", "response": {"id": "resp_1", "status": 5}},
        {"type": "response.output_item.done", "item": {}},
        {"type": "response.output_item.done", "item": {}, "output_index": "1"},
        {"type": "response.output_item.done", "item": {}, "output_index": True},
        {"type": "response.output_item.done", "item": [], "output_index": 1},
        {"type": "response.steer.accepted", "steer": 5},
        {"type": "response.created", "response": {"id": "resp_1"}, "stream_id": 5},
    ],
)
def test_a_known_event_that_is_malformed(fields: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError, match=r"malformed|stream_id"):
        decode(json.dumps(fields))


# Client events.


def test_a_create_is_flat_and_says_its_lane() -> None:
    event = ResponseCreate(
        input=[{"type": "message", "role": "user", "content": "hé"}],
        previous_response_id="resp_1",
        generate=False,
        fields={"model": "m", "store": False, "metadata": {"a": None}},
    )
    assert from_json(encode(event, stream_id="lane-03")) == {
        "type": "response.create",
        "stream_id": "lane-03",
        "generate": False,
        "model": "m",
        "store": False,
        "metadata": {"a": None},
        "previous_response_id": "resp_1",
        "input": [{"type": "message", "role": "user", "content": "hé"}],
    }


def test_the_smallest_create() -> None:
    assert encode(ResponseCreate()) == b'{"type":"response.create","input":[]}'
    assert encode(ResponseCreate(input="hi", generate=True)) == (
        b'{"type":"response.create","generate":true,"input":"hi"}'
    )


def test_an_events_own_lane_goes_before_the_lanes_name() -> None:
    assert b'"stream_id":"mine"' in encode(ResponseCreate(stream_id="mine"), stream_id="lane-01")


@given(
    items=st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4),
    fields=st.dictionaries(st.sampled_from(["model", "tools", "instructions", "weiß"]), JSON, max_size=4),
    parent=st.none() | st.text(),
)
def test_what_is_encoded_ahead_of_time_reads_the_same(
    items: list[dict[str, Any]], fields: dict[str, Any], parent: str | None
) -> None:
    plain = ResponseCreate(input=items, fields=fields, previous_response_id=parent)
    ahead = ResponseCreate(
        input=[encoded(item) for item in items], fields=members(fields), previous_response_id=parent
    )
    mixed = ResponseCreate(
        input=[encoded(item) if index % 2 else item for index, item in enumerate(items)],
        fields=fields,
        previous_response_id=parent,
    )
    assert encode(plain) == encode(ahead) == encode(mixed)
    assert from_json(encode(plain))["input"] == json.loads(json.dumps(items))


@pytest.mark.parametrize("name", ["type", "input", "previous_response_id", "stream_id", "generate"])
def test_a_field_that_the_create_carries_itself_is_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError, match=name):
        encode(ResponseCreate(fields={name: "x", "model": "m"}))


def test_over_http_nothing_is_left_of_the_websocket() -> None:
    event = ResponseCreate(
        input="hi", stream_id="lane-01", generate=False, previous_response_id="resp_1", fields={"model": "m"}
    )
    expected = {"model": "m", "previous_response_id": "resp_1", "input": "hi"}
    for stream in (True, False):
        body = from_json(b"".join(encode_http_body(event, stream=stream)))
        assert body == {**expected, "stream": stream}


def test_a_steer_and_anything_else() -> None:
    steer = ResponseSteer(previous_response_id="resp_1", input="stop")
    assert from_json(encode(steer, stream_id="lane-01")) == {
        "type": "response.steer",
        "previous_response_id": "resp_1",
        "input": "stop",
    }
    raw = {"type": "response.inject", "response_id": "resp_1", "input": []}
    assert from_json(encode(RawClientEvent(payload=raw))) == raw


def test_encoded_text_shows_its_size_alone() -> None:
    value = encoded({"secret": "of a user"})
    assert repr(value) == f"Encoded(text=<{len(value)} bytes>)"
    assert members({}) == Encoded(b"")


@given(JSON)
def test_json_comes_back_as_it_went(value: Any) -> None:
    assert from_json(to_json(value)) == value


@pytest.mark.parametrize("where", ["input", "item", "field"])
def test_what_has_no_json_form_is_refused_with_its_remedy(where: str) -> None:
    bad = "caf\udce9"
    event = {
        "input": ResponseCreate(input=bad),
        "item": ResponseCreate(input=[{"type": "message", "content": bad}]),
        "field": ResponseCreate(input="", fields={"user": bad}),
    }[where]
    with pytest.raises(LocalProtocolError, match=r"character 3 .* \(U\+DCE9\).*mend the text"):
        encode_parts(event)
    with pytest.raises(LocalProtocolError, match=r"U\+DCE9"):
        encode_http_body(event, stream=True)
    with pytest.raises(LocalProtocolError, match="cannot be written as JSON"):
        encode_parts(ResponseCreate(input=[{"type": object()}]))
    with pytest.raises(LocalProtocolError, match=r"U\+DCE9"):
        encode_parts(ResponseSteer(previous_response_id="r", input=bad))

"""A message is read as far as it is acted on; the rest is there when somebody asks, and says the same."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pool.errors import RemoteProtocolError
from pool.wire.codec import decode, event_of_peek, read, to_json
from pool.wire.events import ResponseEnded, ResponseStarted, ServerEvent
from pool.wire.peek import Shell, Snapshot

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TYPES = [
    "response.created",
    "response.completed",
    "response.failed",
    "response.output_item.done",
    "response.output_text.delta",
    "response.steer.accepted",
    "error",
    "something.new",
]
RESPONSES = JSON | st.fixed_dictionaries(
    {"id": st.text(max_size=4)},
    optional={
        "status": st.sampled_from(["completed", "failed", "", None]) | JSON,
        "output": st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=2), max_size=2) | JSON,
        "usage": JSON,
        "error": JSON,
        "tools": JSON,
    },
)
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES)},
    optional={
        "stream_id": st.text(max_size=4) | st.none(),
        "response": RESPONSES,
        "item": JSON,
        "output_index": JSON,
        "error": JSON,
        "steer": JSON,
        "sequence_number": JSON,
    },
)


def outcome(text: str, *, lazily: bool) -> Any:
    """Return what reading gives, whole: the event and all that it holds, or the mistake."""
    try:
        event = event_of_peek(*read(text)) if lazily else decode(text)
    except RemoteProtocolError:
        return "malformed"
    held = {name: getattr(event, name, None) for name in ("response_id", "status", "output_index", "message")}
    response = dict(event.response) if isinstance(event, ResponseEnded) else None
    return type(event), event.type, event.stream_id, event.payload, held, response


@given(MESSAGES)
def test_it_says_the_same_as_reading_all_of_it(message: dict[str, Any]) -> None:
    text = json.dumps(message)
    assert outcome(text, lazily=True) == outcome(text, lazily=False)


def test_a_delta_is_not_parsed_until_somebody_asks() -> None:
    found, _text = read('{"type":"x.delta","delta":"a","stream_id":"l1"}')
    event = event_of_peek(found, '{"type":"x.delta","delta":"a"}')
    assert event._payload is None
    assert event.payload == {"type": "x.delta", "delta": "a"}
    assert event.payload is event.payload


def test_a_response_gives_what_was_read_without_parsing_the_rest() -> None:
    response = '{"id":"r","status":null,"output":[{"type":"message"}],"tools":[1]}'
    text = f'{{"type":"response.completed","response":{response}}}'
    event = event_of_peek(*read(text))
    assert isinstance(event, ResponseEnded)
    found = event.response
    assert isinstance(found, Snapshot)
    assert (event.status, found["id"], found["output"]) == ("completed", "r", [{"type": "message"}])
    assert found.get("usage") is None
    assert "usage" not in found
    assert found._whole is None
    assert found["tools"] == [1]
    assert dict(found) == json.loads(text)["response"]
    assert len(found) == 4


def test_it_can_be_written_as_json_again_and_compared() -> None:
    text = '{"type":"response.completed","response":{"id":"r","tools":[1]}}'
    event = event_of_peek(*read(text))
    assert isinstance(event, ResponseEnded)
    assert to_json({"it": event.response}) == b'{"it":{"id":"r","tools":[1]}}'
    assert event.response == {"id": "r", "tools": [1]}


def test_its_name_shows_no_contents() -> None:
    assert repr(Snapshot(Shell("resp_1", "failed"), "{}")) == "<response resp_1 failed>"


def test_what_started_needs_no_more_than_its_id() -> None:
    text = '{"type":"response.created","response":{"id":"r","instructions":"long"},"stream_id":"l1"}'
    event = event_of_peek(*read(text))
    assert event == ResponseStarted(type="response.created", stream_id="l1", response_id="r")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"type":1}', '{"type":"x","stream_id":1}', "[" * 5000, '{"type":"x"']
)
def test_what_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read(text)


def test_an_event_that_was_not_read_has_its_payload_or_none() -> None:
    assert ServerEvent(type="x").payload == {}
    assert ServerEvent(type="x", payload={"a": 1}).payload == {"a": 1}


@given(st.text(st.sampled_from('a\\"\n\U0001f600\ud83d\ude00\udc00')))
def test_half_a_surrogate_pair_is_mended_and_nothing_else(delta: str) -> None:
    """As `json.dumps` writes it, and many servers do; halves that meet make a whole."""
    text = json.dumps({"type": "x.delta", "delta": delta, "halves": delta.split("\ude00")})
    whole = delta.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    event = event_of_peek(*read(text))
    assert event.payload["delta"] == whole
    if whole == delta:
        assert "halves" in event.payload
    assert json.loads(event.text) == event.payload

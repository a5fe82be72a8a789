"""From the end of a response to a turn, or to the error that it is: whatever a server may have made of it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool.errors import PoolError, RemoteProtocolError
from pool.wire.codec import decode, event_of, to_json
from pool.wire.cycle import Cycle, Finished
from pool.wire.events import ErrorEvent
from scheduler.outcome import calls_of, failure_of, incomplete_reason, text_of, usage_of
from scheduler.turns import FunctionCall, Usage


def refused(payload: dict[str, Any], response_id: str | None = None) -> Finished:
    event = event_of({"type": "error", **payload})
    assert isinstance(event, ErrorEvent)
    return Finished(status="refused", response_id=response_id, error=event)


def test_a_good_end_is_no_failure() -> None:
    assert failure_of(Finished(status="completed", response_id="r")) is None
    assert failure_of(Finished(status="incomplete", response_id="r")) is None


def test_the_nested_error_shape() -> None:
    error = {
        "type": "invalid_request_error",
        "code": "previous_response_not_found",
        "message": "Previous response with id 'resp_abc' not found.",
        "param": "previous_response_id",
    }
    failure = failure_of(refused({"status": 400, "error": error}))
    assert failure is not None
    assert (failure.status, failure.code, failure.param) == (400, error["code"], error["param"])
    assert (failure.kind, failure.message, failure.started) == (error["type"], error["message"], False)
    assert failure.payload["error"] == error
    assert str(failure) == f"400 previous_response_not_found: {error['message']}"


def test_the_flat_error_shape() -> None:
    payload = {"code": "rate_limit_exceeded", "message": "Slow.", "param": None, "sequence_number": 3}
    failure = failure_of(refused(payload, "resp_1"))
    assert failure is not None
    assert (failure.code, failure.kind, failure.status, failure.param) == (
        "rate_limit_exceeded",
        None,
        None,
        None,
    )
    assert (failure.started, failure.response_id) == (True, "resp_1")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2.0),
        ({"retry-after": 3}, 3.0),
        ({"retry-after": "2", "Retry-After-Ms": "1500"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"retry-after-ms": None, "retry-after": "-1"}, None),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_headers_say_how_long_to_wait(headers: dict[str, Any], expected: float | None, inside: bool) -> None:
    error: dict[str, Any] = {"message": "wait"}
    payload: dict[str, Any] = {"status": 429, "error": error}
    (error if inside else payload)["headers"] = headers
    failure = failure_of(refused(payload))
    assert failure is not None
    assert failure.retry_after == expected


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"code": "server_error", "message": "Sorry."}, "server_error", "Sorry."),
        ({"code": 500}, "500", "the response ended as failed, and the server gave no message"),
        (None, None, "the response ended as failed, and the server gave no message"),
        ("broken", None, "the response ended as failed, and the server gave no message"),
        (
            {"code": ["a"], "message": {"b": 1}},
            None,
            "the response ended as failed, and the server gave no message",
        ),
    ],
)
def test_a_failed_response(error: Any, code: str | None, message: str) -> None:
    response = {"id": "resp_1", "status": "failed", "error": error}
    failure = failure_of(Finished(status="failed", response_id="resp_1", response=response))
    assert failure is not None
    assert (failure.code, failure.message) == (code, message)
    assert (failure.started, failure.response_id, failure.payload) == (True, "resp_1", response)


def test_an_end_that_nobody_has_heard_of_is_a_failure() -> None:
    failure = failure_of(Finished(status="cancelled", response_id="resp_1"))
    assert failure is not None
    assert "cancelled" in str(failure)


def test_text_joins_what_the_assistant_said() -> None:
    output: list[Any] = [
        {"type": "reasoning", "summary": []},
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}],
        },
        {"type": "message", "content": [{"type": "output_text", "text": "b"}, {"type": "output_text"}, None]},
        {"type": "message", "content": "plain"},
        {"type": "message", "content": None},
        {"type": "message"},
    ]
    assert text_of(output) == "ab"


def test_calls_come_in_the_models_order() -> None:
    output: list[dict[str, Any]] = [
        {"type": "function_call", "call_id": "c2", "name": "b", "arguments": '{"x":1}'},
        {"type": "message", "content": []},
        {"type": "function_call", "call_id": "c1", "name": "a", "arguments": ""},
        {"type": "function_call", "call_id": "c0", "name": "a"},
    ]
    assert calls_of(output) == (
        FunctionCall(call_id="c2", name="b", arguments='{"x":1}'),
        FunctionCall(call_id="c1", name="a", arguments="{}"),
        FunctionCall(call_id="c0", name="a", arguments="{}"),
    )


@pytest.mark.parametrize("wrong", [{"call_id": None}, {"call_id": 7}, {"name": {}}, {"arguments": {"x": 1}}])
def test_a_call_that_cannot_be_answered_is_the_servers_error(wrong: dict[str, Any]) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}", **wrong}
    with pytest.raises(RemoteProtocolError, match="a function call with"):
        calls_of([call])


def test_usage() -> None:
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 15,
    }
    assert usage_of({"usage": usage}) == Usage(
        input_tokens=10, cached_tokens=4, output_tokens=5, reasoning_tokens=3, total_tokens=15
    )
    assert usage_of({"usage": {"input_tokens": 2, "output_tokens": 1}}).total_tokens == 3
    assert usage_of({}) == usage_of({"usage": None}) == usage_of({"usage": []}) == Usage()
    odd = {"input_tokens": "10", "output_tokens": True, "total_tokens": -4, "input_tokens_details": 7}
    assert usage_of({"usage": odd}) == Usage()


def test_why_a_response_is_incomplete() -> None:
    assert incomplete_reason({"incomplete_details": {"reason": "max_output_tokens"}}) == "max_output_tokens"
    for details in (None, {}, "x", {"reason": 7}):
        assert incomplete_reason({"incomplete_details": details}) is None


TEXT = st.sampled_from(["", "a", "7", "é {", "completed", "failed", "try again in 5s"])
JSON = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, -5, 2**60, 1.5]) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=5,
)
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = [
    *(
        "type",
        "error",
        "message",
        "code",
        "param",
        "status",
        "status_code",
        "headers",
        "retry-after",
        "response",
    ),
    *(
        "id",
        "output",
        "usage",
        "content",
        "text",
        "name",
        "call_id",
        "arguments",
        "input_tokens",
        "stream_id",
    ),
    *("input_tokens_details", "cached_tokens", "incomplete_details", "reason", "item", "output_index"),
]
EVENTS = ["error", "response.created", "response.completed", "response.failed", "response.incomplete"]
EVENTS += ["response.output_item.done", "response.steer.accepted"]
KINDS = [*EVENTS, "message", "function_call", "reasoning", "compaction", "output_text"]
OBJECTS = st.recursive(
    JSON | st.sampled_from(KINDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=15,
)


@FUZZ
@given(kind=st.sampled_from(EVENTS), fields=st.dictionaries(st.sampled_from(NAMES), OBJECTS, max_size=6))
def test_whatever_a_server_says_is_a_turn_or_an_error_of_ours(kind: str, fields: dict[str, Any]) -> None:
    """From the text of the message to the turn's values: nothing but `PoolError` may come out."""
    cycle = Cycle()
    cycle.send()
    with suppress(PoolError):
        finished = cycle.receive(decode(to_json({**fields, "type": kind})))
        if finished is not None:
            look_at(finished)


@FUZZ
@given(
    output=st.lists(st.dictionaries(st.sampled_from(NAMES), OBJECTS, max_size=5), max_size=3),
    response=OBJECTS,
)
def test_whatever_is_in_a_response(output: list[dict[str, Any]], response: Any) -> None:
    for status in ("completed", "failed", "strange"):
        finished = Finished(
            status=status,
            response_id="r",
            output=tuple(output),
            response=response if isinstance(response, dict) else {"usage": response, "error": response},
        )
        with suppress(PoolError):
            look_at(finished)


def look_at(finished: Finished) -> None:
    failure = failure_of(finished)
    if failure is not None:
        assert str(failure)
        assert failure.code is None or isinstance(failure.code, str)
        return
    assert isinstance(text_of(finished.output), str)
    usage = usage_of(finished.response) + Usage()
    assert usage.total_tokens >= 0
    reason = incomplete_reason(finished.response)
    assert reason is None or isinstance(reason, str)
    calls_of(finished.output)

"""What a create may hold, and in which words it is refused."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from openai.types.responses import response_create_params
from openai.types.responses.responses_client_event import ResponseCreate

from pool.emulator.request import FIELDS, SOCKET_FIELDS, checked_request
from pool.wire.refusal import Refused, unauthorized
from tests.emulator.client import TOOL, user

PLAIN = {"model": "m", "input": "x"}


def test_every_field_of_the_official_sdk_is_known() -> None:
    assert set(get_type_hints(response_create_params.ResponseCreateParamsBase)) - FIELDS == set()
    assert set(ResponseCreate.model_fields) - SOCKET_FIELDS == set()


def test_what_a_request_holds() -> None:
    request = checked_request(
        {
            **PLAIN,
            "temperature": 1,
            "store": None,
            "tools": [TOOL, {"type": "web_search"}],
            "context_management": [{"type": "compaction", "compact_threshold": 9}],
        },
        socket=False,
    )
    assert request.store
    assert request.input == [user("x")]
    assert request.compact_threshold == 9
    assert (
        checked_request(
            {**PLAIN, "context_management": [{"type": "compaction"}]}, socket=True
        ).compact_threshold
        is None
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": [{"type": "message", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "b"}]}, "input[0].arguments"),
        (
            {"input": [{"type": "function_call", "call_id": 1, "name": "b", "arguments": ""}]},
            "input[0].call_id",
        ),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": 1}]}, "input[0].output"),
        ({"input": [{"type": "custom_tool_call", "call_id": 1}]}, "input[0].call_id"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"tools": [{"name": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "has space"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "x", "parameters": [1]}]}, "tools[0].parameters"),
        ({"store": "yes"}, "store"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a" * 65: "x"}}, "metadata." + "a" * 65),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"context_management": ["x"]}, "context_management[0]"),
        ({"context_management": [{"type": "x"}]}, "context_management[0].type"),
        (
            {"context_management": [{"type": "compaction", "compact_threshold": 0}]},
            "context_management[0].compact_threshold",
        ),
        ({"text": "x"}, "text"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], param: str) -> None:
    for socket in (False, True):
        with pytest.raises(Refused) as caught:
            checked_request({**PLAIN, **fields}, socket=socket)
        assert caught.value.param == param
        assert caught.value.status == 400


def test_a_parent_and_a_conversation_exclude_each_other() -> None:
    with pytest.raises(Refused, match="Mutually exclusive"):
        checked_request({**PLAIN, "conversation": "c", "previous_response_id": "r"}, socket=False)


def test_both_error_shapes() -> None:
    refused = Refused("no", status=429, kind="tokens", code="c", param="p", retry_after=2)
    assert refused.body() == {"error": {"message": "no", "type": "tokens", "param": "p", "code": "c"}}
    assert refused.event("lane") == {
        "type": "error",
        "status": 429,
        "error": {
            "type": "tokens",
            "code": "c",
            "message": "no",
            "param": "p",
            "headers": {"retry-after": "2"},
        },
        "headers": {"retry-after": "2"},
        "stream_id": "lane",
    }
    assert unauthorized().status == 401

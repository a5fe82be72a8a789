"""From the end of a response to a turn, or to the error that it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pool.errors import RemoteProtocolError, ResponseFailed
from pool.retry_after import seconds
from pool.wire.cycle import Finished
from pool.wire.events import ErrorEvent
from scheduler.turns import FunctionCall, Usage


def failure_of(finished: Finished) -> ResponseFailed | None:
    """Return the error that a response ended in, or None when it completed (or is incomplete)."""
    if finished.error is not None:
        return _refused(finished.error, finished.response_id)
    if finished.status != "failed":
        return None
    error = _object(finished.response.get("error"))
    return ResponseFailed(
        str(error.get("message") or "the response failed, and the server gave no message"),
        code=error.get("code"),
        started=True,
        response_id=finished.response_id,
        payload=finished.response,
    )


def _refused(event: ErrorEvent, response_id: str | None) -> ResponseFailed:
    headers = {name.lower(): value for name, value in event.headers.items()}
    milliseconds = seconds(str(headers.get("retry-after-ms", "")))
    return ResponseFailed(
        event.message,
        code=event.code,
        kind=event.kind,
        status=event.status,
        param=event.param,
        started=response_id is not None,
        retry_after=milliseconds / 1000
        if milliseconds is not None
        else seconds(str(headers.get("retry-after", ""))),
        response_id=response_id,
        payload=event.payload,
    )


def text_of(output: Sequence[Mapping[str, Any]]) -> str:
    """Join the text of the assistant's messages."""
    return "".join(
        part.get("text", "")
        for item in output
        if item.get("type") == "message"
        for part in item.get("content") or ()
        if part.get("type") == "output_text"
    )


def calls_of(output: Sequence[Mapping[str, Any]]) -> tuple[FunctionCall, ...]:
    """Return the function calls, in the model's order.

    Raises:
        RemoteProtocolError: a call lacks its id or name.
    """
    calls = [item for item in output if item.get("type") == "function_call"]
    try:
        return tuple(
            FunctionCall(call_id=call["call_id"], name=call["name"], arguments=call.get("arguments") or "{}")
            for call in calls
        )
    except KeyError as error:
        raise RemoteProtocolError(f"a function call without {error}") from None


def usage_of(response: Mapping[str, Any]) -> Usage:
    """Return the tokens of a response; zeros where the server says nothing."""
    usage = _object(response.get("usage"))
    read = _object(usage.get("input_tokens_details"))
    written = _object(usage.get("output_tokens_details"))
    into, out = usage.get("input_tokens") or 0, usage.get("output_tokens") or 0
    return Usage(
        input_tokens=into,
        cached_tokens=read.get("cached_tokens") or 0,
        output_tokens=out,
        reasoning_tokens=written.get("reasoning_tokens") or 0,
        total_tokens=usage.get("total_tokens") or into + out,
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}

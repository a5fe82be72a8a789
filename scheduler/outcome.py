"""From the end of a response to a turn, or to the error that it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pool.errors import RemoteProtocolError, ResponseFailed
from pool.retry_after import retry_after
from pool.wire.cycle import Finished
from pool.wire.events import ErrorEvent
from scheduler.turns import FunctionCall, Usage


def failure_of(finished: Finished, now: float | None = None) -> ResponseFailed | None:
    """Return the error that a response ended in, or None when it completed (or is incomplete).

    `now`, in seconds since 1970, is for a server that says until when to wait, and not what time it is.
    """
    if finished.error is not None:
        return _refused(finished.error, finished.response_id, now)
    if finished.status in ("completed", "incomplete"):
        return None
    error = _object(finished.response.get("error"))
    code = error.get("code")
    return ResponseFailed(
        _text(error.get("message"))
        or f"the response ended as {finished.status}, and the server gave no message",
        code=str(code) if isinstance(code, str | int) else None,
        started=True,
        response_id=finished.response_id,
        payload=finished.response,
    )


def _refused(event: ErrorEvent, response_id: str | None, now: float | None) -> ResponseFailed:
    headers = {name.lower(): value for name, value in event.headers.items()}
    return ResponseFailed(
        event.message,
        code=event.code,
        kind=event.kind,
        status=event.status,
        param=event.param,
        started=response_id is not None,
        retry_after=retry_after(headers, now),
        response_id=response_id,
        payload=event.payload,
    )


def incomplete_reason(response: Mapping[str, Any]) -> str | None:
    """Return why the server cut a response short, if it says so."""
    return _text(_object(response.get("incomplete_details")).get("reason"))


def text_of(output: Sequence[Mapping[str, Any]]) -> str:
    """Join the text of the assistant's messages."""
    return "".join(
        _text(part.get("text")) or ""
        for item in output
        if item.get("type") == "message"
        for part in _objects(item.get("content"))
        if part.get("type") == "output_text"
    )


def calls_of(output: Sequence[Mapping[str, Any]]) -> tuple[FunctionCall, ...]:
    """Return the function calls, in the model's order.

    Raises:
        RemoteProtocolError: a call lacks its id, its name or its arguments' text.
    """
    return tuple(_call(item) for item in output if item.get("type") == "function_call")


def _call(item: Mapping[str, Any]) -> FunctionCall:
    call_id, name, arguments = item.get("call_id"), item.get("name"), item.get("arguments") or "{}"
    if not (isinstance(call_id, str) and isinstance(name, str) and isinstance(arguments, str)):
        raise RemoteProtocolError(
            f"a function call with call_id {call_id!r}, name {name!r} and arguments {type(arguments).__name__}"
        )
    return FunctionCall(call_id=call_id, name=name, arguments=arguments)


def usage_of(response: Mapping[str, Any]) -> Usage:
    """Return the tokens of a response; zeros where the server says nothing (or nothing sensible)."""
    usage = _object(response.get("usage"))
    read = _object(usage.get("input_tokens_details"))
    written = _object(usage.get("output_tokens_details"))
    into, out = _count(usage.get("input_tokens")), _count(usage.get("output_tokens"))
    return Usage(
        input_tokens=into,
        cached_tokens=_count(read.get("cached_tokens")),
        output_tokens=out,
        reasoning_tokens=_count(written.get("reasoning_tokens")),
        total_tokens=_count(usage.get("total_tokens")) or into + out,
    )


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0

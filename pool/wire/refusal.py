"""Refusals in OpenAI's words: one value, shown as an HTTP error body or as a WebSocket `error` event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Refused(Exception):
    """The request is refused. Carries what both error shapes need; nothing was generated.

    `status` is the HTTP status (or its equivalent on a socket); `retry_after` is in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.kind, self.code, self.param = message, status, kind, code, param
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to the refusal."""
        if self.retry_after is None:
            return {}
        # Never with an exponent, which no client reads
        return {"retry-after": f"{self.retry_after:.3f}".rstrip("0").rstrip(".")}

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the HTTP answer."""
        return {
            "error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code},
        }

    def event(self, stream_id: str | None = None) -> dict[str, Any]:
        """Return the `error` event; it has no `sequence_number`, as the real one has none."""
        error: dict[str, Any] = {"type": self.kind, "code": self.code, "message": self.message}
        if self.param is not None:
            error["param"] = self.param
        if self.headers:
            error["headers"] = self.headers
        event: dict[str, Any] = {"type": "error", "status": self.status, "error": error}
        if self.headers:
            event["headers"] = self.headers
        if stream_id is not None:
            event["stream_id"] = stream_id
        return event


def unauthorized() -> Refused:
    """The key is missing or wrong. The key itself is not repeated, not even in part."""
    return Refused(
        "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.",
        status=401,
        code="invalid_api_key",
    )


def unknown_parameter(name: str) -> Refused:
    """A field that this endpoint does not know."""
    return Refused(f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)


def missing_parameter(name: str) -> Refused:
    """A required field is absent."""
    return Refused(f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)


def invalid_type(param: str, expected: str, value: object) -> Refused:
    """A field has the wrong JSON type."""
    names: Mapping[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    found = names.get(type(value), type(value).__name__)
    return Refused(
        f"Invalid type for '{param}': expected {expected}, but got {found} instead.",
        code="invalid_type",
        param=param,
    )


def invalid_value(param: str, message: str) -> Refused:
    """A field has the right type but a value that cannot be used."""
    return Refused(message, code="invalid_value", param=param)


def previous_response_not_found(response_id: str) -> Refused:
    """The parent is neither remembered on this connection nor stored."""
    return Refused(
        f"Previous response with id '{response_id}' not found.",
        code="previous_response_not_found",
        param="previous_response_id",
    )


def item_not_found(item_id: str) -> Refused:
    """An item is referred to by id alone, and was never stored."""
    return Refused(
        f"Item with id '{item_id}' not found. Items are not persisted when `store` is set to false. "
        "Try again with `store` set to true, or remove this item from your input.",
        status=404,
        param="input",
    )


def no_call_for_output(call_id: str) -> Refused:
    """A tool output answers a call that is not in the context, or is already answered."""
    return Refused(f"No tool call found for function call output with call_id {call_id}.", param="input")


def no_output_for_call(call_id: str) -> Refused:
    """The model cannot go on while a call is unanswered."""
    return Refused(f"No tool output found for function call {call_id}.", param="input")


def invalid_stream_id() -> Refused:
    """The lane's name breaks the rule for names."""
    return Refused(
        "The 'stream_id' field must be a non-empty string with at most 256 characters and may only contain "
        "letters, numbers, underscores, hyphens, and periods.",
        code="invalid_stream_id",
        param="stream_id",
    )


def stream_limit_reached(limit: int) -> Refused:
    """One lane name too many for this connection's life."""
    return Refused(
        f"This WebSocket connection has reached its maximum number of distinct stream IDs ({limit}). "
        "Reuse an existing stream_id or open a new WebSocket connection.",
        code="websocket_stream_limit_reached",
        param="stream_id",
    )


def connection_limit_reached(max_age: float) -> Refused:
    """The connection is as old as it may become (`max_age`, in seconds)."""
    minutes = max_age / 60
    age = f"{minutes:g} minute" if minutes >= 1 else f"{max_age:g} second"
    plural = "" if age.startswith("1 ") else "s"
    return Refused(
        f"Responses websocket connection limit reached ({age}{plural}). "
        "Create a new websocket connection to continue.",
        code="websocket_connection_limit_reached",
    )

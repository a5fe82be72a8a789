"""A client's message, as a server takes it: a JSON object in text, of a type that it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pool.wire.codec import from_json, split_object
from pool.wire.events import Encoded
from pool.wire.refusal import Refused, invalid_value, missing_parameter

KINDS = ("response.create", "response.steer")


def client_event(message: str | bytes) -> dict[str, Any]:
    """Return a client's event. Raises `Refused`; the connection goes on then."""
    event = _parsed(message, from_json)
    if not isinstance(event, dict):
        raise Refused("A client event must be a JSON object.", code="invalid_json")
    _check(event.get("type"))
    return event


def client_event_split(message: str | bytes) -> dict[str, Encoded]:
    """Return a client's event without looking into its members. Raises as `client_event`."""
    members: dict[str, Encoded] = _parsed(message, _split)
    kind = members.get("type")
    _check(None if kind is None else from_json(kind.text))
    return members


def _split(text: str) -> dict[str, Encoded]:
    try:
        return split_object(text.encode())
    except ValueError:
        if isinstance(from_json(text), dict):
            raise
        raise Refused("A client event must be a JSON object.", code="invalid_json") from None


def _parsed(message: str | bytes, parse: Callable[[str], Any]) -> Any:
    if isinstance(message, bytes):
        raise Refused("Binary messages are not supported; send JSON as text.", code="invalid_message")
    try:
        return parse(message)
    except (ValueError, RecursionError):
        raise Refused("We could not parse the JSON body of your message.", code="invalid_json") from None


def _check(kind: object) -> None:
    if kind is None:
        raise missing_parameter("type")
    if kind not in KINDS:
        known = " and ".join(map(repr, KINDS))
        raise invalid_value("type", f"Invalid value: {str(kind)[:64]!r}. Supported values are: {known}.")

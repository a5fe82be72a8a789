"""A client's message, as a server takes it: a JSON object in text, of a type that it knows."""

from __future__ import annotations

from typing import Any

from pool.wire.codec import from_json
from pool.wire.refusal import Refused, invalid_value, missing_parameter

KINDS = ("response.create", "response.steer")


def client_event(message: str | bytes) -> dict[str, Any]:
    """Return a client's event. Raises `Refused`; the connection goes on then."""
    if isinstance(message, bytes):
        raise Refused("Binary messages are not supported; send JSON as text.", code="invalid_message")
    try:
        event = from_json(message)
    except (ValueError, RecursionError):
        raise Refused("We could not parse the JSON body of your message.", code="invalid_json") from None
    if not isinstance(event, dict):
        raise Refused("A client event must be a JSON object.", code="invalid_json")
    kind = event.get("type")
    if kind is None:
        raise missing_parameter("type")
    if kind not in KINDS:
        known = " and ".join(map(repr, KINDS))
        raise invalid_value("type", f"Invalid value: {str(kind)[:64]!r}. Supported values are: {known}.")
    return event

"""A client's message, as a server takes it: a JSON object in text, of a type that it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pool.wire.codec import from_json, split_object
from pool.wire.events import Encoded
from pool.wire.refusal import Refused, invalid_value, missing_parameter
from pool.wire.scan import MOST_MEMBERS, SHORT, Excess, is_short, outline
from pool.wire.slices import Sliced

KINDS = ("response.create", "response.steer")
_SAY = ("type", "stream_id")  # what to do with a message
_LONGEST = 1024  # bytes of what they say
_FEW = 20_000  # brackets of a message that is parsed whole


def client_event(message: str | bytes) -> dict[str, Any]:
    """Return a client's event. Raises `Refused`; the connection goes on then."""
    event = _parsed(message, from_json)
    if not isinstance(event, dict):
        raise Refused("A client event must be a JSON object.", code="invalid_json")
    _check(event.get("type"))
    return event


def client_event_split(message: str | bytes) -> Sliced[tuple[dict[str, Encoded], bytes]]:
    """Return a client's event without looking into its members, and its text; in slices where it is long.

    Of a long one, only the members that say what to do with it. Raises as `client_event`.
    """
    if isinstance(message, bytes):
        raise Refused("Binary messages are not supported; send JSON as text.", code="invalid_message")
    try:
        text = message.encode()
        if is_short(text):
            members = _split(text)
        else:
            parts = yield from outline(text)
            members = {
                name: Encoded(text[parts[name].start : parts[name].end]) for name in _SAY if name in parts
            }
    except Excess as error:
        raise Refused(f"The message is beyond what is read here. {error}", code="invalid_message") from None
    except (ValueError, RecursionError):
        raise Refused("We could not parse the JSON body of your message.", code="invalid_json") from None
    kind = members.get("type")
    _check(None if kind is None else value_of(kind))
    return members, text


def value_of(member: Encoded) -> Any:
    """Return what a member says, if it is short; else the beginning of its text."""
    beginning = member.text[:_LONGEST]
    try:
        return from_json(beginning)
    except (ValueError, RecursionError):  # cut off, a number that no float holds, or too deep a nesting
        return beginning.decode(errors="replace")


def check_length(text: bytes) -> None:
    """Raise `Refused` when a message is too long, or too dense, to be parsed whole."""
    if not is_short(text) or text.count(b"{") + text.count(b"[") > _FEW:
        raise Refused(
            f"The message is too long: one that steers may have {SHORT} bytes and {_FEW} brackets.",
            code="invalid_message",
        )


def _split(text: bytes) -> dict[str, Encoded]:
    try:
        return split_object(text, most=MOST_MEMBERS)
    except Excess:
        raise
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

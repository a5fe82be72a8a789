"""Text <-> JSON <-> events: the one converter, cattrs over msgspec.

Theory of operation
    A message is read by `read`, no further than warmline acts on it (see `peek`). Most messages are deltas that
    nobody but the caller looks at, so only the few types that warmline acts on are structured further
    (`event_of_peek`) into the classes of `events`; the rest become a bare `ServerEvent`. Whatever came in can still
    be had whole, as its `payload`, because callers need fields that we have never heard of.

    What is not as `peek` expects, and what is rare, is parsed into plain JSON (`parse`) and structured by cattrs
    (`event_of`), which says what is wrong with it.

    The other way, a `response.create` is joined from parts that are already JSON (`encode`): a conversation
    encodes its items once, a run its instructions and tools once, and each turn only concatenates.

Outside this package nothing imports cattrs or msgspec to read or write JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cattrs
import msgspec
from cattrs.gen import make_dict_structure_fn, override

from pool.errors import LocalProtocolError, RemoteProtocolError
from pool.redaction import redacted, redacted_json
from pool.wire.events import (
    NOTHING,
    STARTED,
    STEER,
    TERMINAL,
    ClientEvent,
    Encoded,
    ErrorEvent,
    OutputItemDone,
    ResponseCreate,
    ResponseEnded,
    ResponseStarted,
    ResponseSteer,
    ServerEvent,
    SteerEvent,
)
from pool.wire.peek import Peek, Snapshot, mended, peek, whole
from pool.wire.scan import Excess
from pool.wire.slices import Meter, Sliced


def _plain(value: Any) -> Any:
    if isinstance(value, Snapshot):
        return value.whole
    raise TypeError(f"{type(value).__name__} is no JSON")


to_json: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_plain).encode
"""Encode parsed JSON (or anything msgspec knows) compactly, in UTF-8."""

from_json = whole


def encoded(value: Any) -> Encoded:
    """Encode one JSON value ahead of time."""
    return Encoded(to_json(value))


def members(fields: Mapping[str, Any]) -> Encoded:
    """Encode the members of an object ahead of time, without its braces. Its values may be `Encoded` themselves."""
    raw = {
        name: msgspec.Raw(value.text) if isinstance(value, Encoded) else value
        for name, value in fields.items()
    }
    return Encoded(to_json(raw)[1:-1])


def split_object(text: bytes | Encoded, *, most: int | None = None) -> dict[str, Encoded]:
    """Take an object apart without looking into its members: each keeps its text. A name said twice counts once.

    Raises:
        Excess: it has more than `most` members.
        ValueError: it is no JSON object, or no UTF-8.
    """
    found = _object_of_raw(_checked(text))
    if most is not None and len(found) > most:
        raise Excess(f"It has more than {most} parameters.")
    return {name: Encoded(bytes(raw)) for name, raw in found.items()}


def split_array(text: bytes | Encoded) -> list[Encoded]:
    """Take an array apart without looking into its members: each keeps its text. Raises as `split_object`."""
    return [Encoded(bytes(raw)) for raw in _array_of_raw(_checked(text))]


def split_array_sliced(text: Encoded, most: int, name: str, meter: Meter) -> Sliced[list[Encoded]]:
    """Do the same in slices, for a text that `is_short`. Raises `Excess` as well: it has more than `most` members."""
    found = _array_of_raw(_checked(text))
    if len(found) > most:
        raise Excess(f"'{name}' has {len(found)} elements; it may have {most}.", param=name)
    made: list[Encoded] = []
    for start in range(0, len(found), _BATCH):
        made += [Encoded(bytes(raw)) for raw in found[start : start + _BATCH]]
        if meter.full(min(_BATCH, len(found) - start) * _ELEMENT):
            yield
    return made


def _checked(text: bytes | Encoded) -> str:
    """Return the text of JSON. What is skipped over is checked for everything but its encoding: so that, too."""
    return (text.text if isinstance(text, Encoded) else text).decode()


_BATCH, _ELEMENT = 100, 600  # elements, and units of work for each
_object_of_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array_of_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode


_NONE = type(None)
_RESERVED = frozenset({"type", "input", "previous_response_id", "stream_id", "generate"})


def encode(event: ClientEvent, *, stream_id: str | None = None) -> bytes:
    """Return the message for one client event, whole. See `encode_parts`."""
    return b"".join(encode_parts(event, stream_id=stream_id))


def encode_parts(event: ClientEvent, *, stream_id: str | None = None) -> list[bytes]:
    """Return the message for one client event, in parts, so that what is encoded already is not copied.

    `stream_id` is the lane of a create that names none itself.

    Raises:
        LocalProtocolError: `fields` holds what `ResponseCreate` carries itself, or something has no JSON form.
    """
    try:
        if isinstance(event, ResponseCreate):
            return _create_message(event, event.stream_id or stream_id)
        if isinstance(event, ResponseSteer):
            parts = [b'{"type":"response.steer","previous_response_id":', to_json(event.previous_response_id)]
            return [*parts, b',"input":', *_input_parts(event.input), b"}"]
        return [to_json(event.payload)]
    except (TypeError, ValueError, RecursionError) as error:
        raise _unwritable(error) from None


def _unwritable(error: Exception) -> LocalProtocolError:
    if isinstance(error, UnicodeEncodeError):
        half = ord(error.object[error.start])
        return LocalProtocolError(
            f"character {error.start} of a text is half a surrogate pair (U+{half:04X}), which has no JSON form; "
            'mend the text: text.encode("utf-8", "replace").decode()'
        )
    return LocalProtocolError(f"cannot be written as JSON ({error}): give texts, numbers, lists and mappings")


def encode_http_body(event: ResponseCreate, *, stream: bool) -> list[bytes]:
    """Return the same request as an HTTP body, without what exists only on a WebSocket; as `encode_parts`."""
    try:
        return [b'{"stream":', b"true" if stream else b"false", *_create_parts(event), b"}"]
    except (TypeError, ValueError, RecursionError) as error:
        raise _unwritable(error) from None


def _create_message(event: ResponseCreate, stream_id: str | None) -> list[bytes]:
    parts = [b'{"type":"response.create"']
    if stream_id is not None:
        parts += b',"stream_id":', to_json(stream_id)
    if event.generate is not None:
        parts.append(b',"generate":true' if event.generate else b',"generate":false')
    parts += _create_parts(event)
    parts.append(b"}")
    return parts


def _create_parts(event: ResponseCreate) -> list[bytes]:
    fields = event.fields
    if not isinstance(fields, Encoded):
        clash = _RESERVED & fields.keys()
        if clash:
            raise LocalProtocolError(
                f"give {', '.join(sorted(clash))} to ResponseCreate itself, not in `fields`"
            )
        fields = members(fields)
    parts = [b",", fields.text] if fields.text else []
    if event.previous_response_id is not None:
        parts += b',"previous_response_id":', to_json(event.previous_response_id)
    parts.append(b',"input":')
    parts += _input_parts(event.input)
    return parts


def _input_parts(given: str | Sequence[Mapping[str, Any] | Encoded]) -> list[bytes]:
    if isinstance(given, str):
        return [to_json(given)]
    parts: list[bytes] = []
    separator = b"["
    for item in given:
        parts += separator, item.text if isinstance(item, Encoded) else to_json(item)
        separator = b","
    parts.append(b"]" if parts else b"[]")
    return parts


def parse(text: str | bytes) -> dict[str, Any]:
    """Parse one message into JSON that is an object with a `type`.

    Raises:
        RemoteProtocolError: it is anything else.
    """
    try:
        payload = from_json(text)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"a message that is not JSON: {error}") from None
    if type(payload) is not dict or type(payload.get("type")) is not str:
        raise RemoteProtocolError("a message that is not a JSON object with a type")
    if type(payload.get("stream_id")) not in (str, _NONE):
        raise RemoteProtocolError("a message whose stream_id is not a string")
    return payload


def read(text: str) -> tuple[Peek, str]:
    """Read one message no further than it is acted on; return its text, too, mended where that was necessary.

    Raises:
        RemoteProtocolError: it is no JSON object with a `type`.
    """
    found = peek(text)
    if found is None and (found := peek(text := mended(text))) is None:
        payload = parse(text)
        found = Peek(payload["type"], payload.get("stream_id"))
    return found, text


def event_of_peek(found: Peek, text: str) -> ServerEvent:
    """Turn a message that was read into its event. Raises as `event_of`."""
    kind, shell = found.type, found.response
    if kind not in _STRUCTURE:
        return ServerEvent(type=kind, stream_id=found.stream_id, text=text)
    if shell is None:
        return event_of(parse(text), text)
    if kind in STARTED:
        return ResponseStarted(type=kind, stream_id=found.stream_id, text=text, response_id=shell.id)
    if kind in TERMINAL:
        if kind == FAILED or shell.error or shell.status == "failed":
            return event_of(parse(text), text)  # it is looked through
        return ResponseEnded(
            type=kind,
            stream_id=found.stream_id,
            text=text,
            response_id=shell.id,
            status=shell.status or kind.removeprefix("response."),
            response=Snapshot(shell, text),
        )
    return event_of(parse(text), text)


def event_of(payload: dict[str, Any], text: str = "") -> ServerEvent:
    """Turn a parsed message into its event; an unknown type becomes a plain `ServerEvent`. `text`: as it came.

    Raises:
        RemoteProtocolError: a type that we act on lacks what it must have.
    """
    kind = payload["type"]
    structure = _STRUCTURE.get(kind)
    if kind in _EXCUSES or (kind in TERMINAL and _failed(payload)):
        payload, text = _without_secrets(payload, text)
    if structure is None:
        lane = payload.get("stream_id")
        return ServerEvent(
            type=kind, payload=payload, stream_id=lane if isinstance(lane, str) else None, text=text
        )
    try:
        return structure(payload, text)
    except (KeyError, TypeError, ValueError, AttributeError, cattrs.BaseValidationError) as error:
        raise RemoteProtocolError(f"malformed {kind} event ({type(error).__name__}: {error})") from None


FAILED = "response.failed"
# What holds the server's own words about a request, rather than what a model has said
_EXCUSES = STEER | {"error", FAILED}


def _failed(payload: dict[str, Any]) -> bool:
    response = payload.get("response")
    return type(response) is dict and bool(response.get("error") or response.get("status") == "failed")


def _without_secrets(payload: dict[str, Any], text: str) -> tuple[dict[str, Any], str]:
    """Return an event without the keys in use, which a server may repeat when it complains about one."""
    if (
        text and redacted(text) == text
    ):  # hardly ever is there one, and this is much faster than a look at each value
        return payload, text
    clean = redacted_json(payload)
    return (payload, text) if clean is payload else (clean, to_json(clean).decode() if text else "")


def decode(text: str | bytes) -> ServerEvent:
    """Return the event that one message holds."""
    return event_of(parse(text))


_converter = cattrs.Converter(detailed_validation=False, prefer_attrib_converters=True)


@_converter.register_structure_hook
def _strict_str(value: Any, _type: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{value!r} is not a string")
    return value


@_converter.register_structure_hook
def _strict_int(value: Any, _type: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _object(value: Any, _type: Any = None) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise TypeError(f"{value!r} is not an object")
    return value


_converter.register_structure_hook_func(lambda cls: cls == Mapping[str, Any], _object)


def _with_payload(cls: type[ServerEvent], **overrides: Any) -> Callable[[dict[str, Any]], ServerEvent]:
    """Return the cattrs function for `cls`, fed with a flat view of the message beside the message itself."""
    hook = make_dict_structure_fn(cls, _converter, _cattrs_forbid_extra_keys=False, **overrides)
    return lambda flat: hook(flat, cls)


_started = _with_payload(ResponseStarted)
_item_done = _with_payload(OutputItemDone)
_ended = _with_payload(ResponseEnded)
_error = _with_payload(ErrorEvent, kind=override(rename="error_type"))
_steer = _with_payload(SteerEvent)


def _head(payload: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        "type": payload["type"],
        "_payload": payload,
        "stream_id": payload.get("stream_id"),
        "text": text,
    }


def _structure_started(payload: dict[str, Any], text: str) -> ServerEvent:
    return _started({**_head(payload, text), "response_id": payload["response"]["id"]})


def _structure_item_done(payload: dict[str, Any], text: str) -> ServerEvent:
    return _item_done(
        {**_head(payload, text), "output_index": payload["output_index"], "item": payload["item"]}
    )


def _structure_ended(payload: dict[str, Any], text: str) -> ServerEvent:
    response = payload["response"]
    # Some servers leave `status` out of the terminal object; the event's own name says it as well.
    status = response.get("status") or payload["type"].removeprefix("response.")
    return _ended(
        {**_head(payload, text), "response_id": response["id"], "status": status, "response": response}
    )


def _structure_error(payload: dict[str, Any], text: str) -> ServerEvent:
    nested = payload.get("error")
    source = nested if type(nested) is dict else payload
    status = payload.get("status", payload.get("status_code"))
    message, code, param, kind = (source.get(name) for name in ("message", "code", "param", "type"))
    return _error(
        {
            **_head(payload, text),
            # An error is the last thing to be strict about: whatever it says must reach the caller.
            "message": message if isinstance(message, str) else "the server gave no message",
            "code": str(code) if code is not None else None,
            "error_type": str(kind) if kind is not None and source is nested else None,
            "param": str(param) if param is not None else None,
            "status": status if type(status) is int else None,
            "headers": next(
                (h for h in (payload.get("headers"), source.get("headers")) if type(h) is dict), NOTHING
            ),
        }
    )


def _structure_steer(payload: dict[str, Any], text: str) -> ServerEvent:
    steer = payload.get("steer") or {}
    target, steer_id = steer.get("previous_response_id"), steer.get("id")
    return _steer({**_head(payload, text), "previous_response_id": target, "steer_id": steer_id})


_STRUCTURE: dict[str, Callable[[dict[str, Any], str], ServerEvent]] = {
    **dict.fromkeys(STARTED, _structure_started),
    **dict.fromkeys(TERMINAL, _structure_ended),
    **dict.fromkeys(STEER, _structure_steer),
    "response.output_item.done": _structure_item_done,
    "error": _structure_error,
}

"""A create as a client said it: taken apart just far enough to act on, and passed on as it came. Pure.

Theory of operation
    A client that keeps no state sends its whole history each time, most of which has been here before. So the body
    is split into its members without reading into them, and the input into its items; what goes upstream is joined
    from those very texts. Only the few fields that steer the gateway itself are parsed. Everything else, known to us
    or not, is the server's to judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from pool.settings import MIB
from pool.wire.codec import from_json, split_array_sliced, split_object
from pool.wire.events import Encoded
from pool.wire.refusal import Refused, invalid_type, invalid_value, missing_parameter
from pool.wire.scan import MOST_MEMBERS, Excess, is_short, outline
from pool.wire.slices import Meter, Sliced, at_once, copied, joined
from scheduler.turns import TurnRequest

# What a create says about itself or its way, not to the model; the scheduler says each of these anew.
_TAKEN = frozenset(
    {"type", "stream", "stream_id", "generate", "input", "previous_response_id", "background", "conversation"}
)
_NULL = b"null"
_LONGEST = 1024  # bytes of a text that the gateway acts on: a model's name, an id
_ITEM = 1000  # units of work (see `pool.wire.slices`), for an item
_BYTE = 1.5  # likewise for a byte that the JSON library skips, at the worst


@frozen(kw_only=True)
class Bounds:
    """What a create may hold: `items` of its input, and bytes of its other `fields`, all together."""

    items: int = 20_000
    fields: int = 2 * MIB


_USUAL = Bounds()


@frozen(kw_only=True)
class Asked:
    """One create. `items`: None where there is no input at all; `members`: every field that goes upstream."""

    model: str
    items: Sequence[Encoded] | None
    stream: bool = False
    store: bool | None = None  # None: not said, the server's default counts
    previous_response_id: str | None = None
    stream_id: str | None = None
    generate: bool | None = None
    plain: str | None = None  # the field that only plain HTTP can serve
    conversation: Encoded | None = None  # the server's own state that it goes on from, by its id
    members: Mapping[str, Encoded] = field(factory=dict, repr=False)

    @property
    def stored(self) -> bool:
        """The server is expected to keep the response."""
        return self.store is not False

    @property
    def named(self) -> Iterator[str]:
        """The ids of the conversation and the prompt of the server's that it builds on."""
        for part in (self.conversation, self.members.get("prompt")):
            value = None if part is None else from_json(part.text)
            name = value.get("id") if isinstance(value, dict) else value
            if isinstance(name, str):
                yield name

    @property
    def reasoning_included(self) -> bool:
        """The client has asked for encrypted reasoning itself."""
        include = self.members.get("include")
        return include is not None and b"reasoning.encrypted_content" in include.text

    def request(self) -> TurnRequest:
        """Return what is said on this turn beside the input, as the scheduler takes it."""
        options: dict[str, Any] = {
            name: value for name, value in self.members.items() if name not in ("model", "store")
        }
        return TurnRequest(
            model=self.model, options=options, says_store=self.store is not None, generate=self.generate
        )


def read_create(text: bytes) -> Asked:
    """Read a create: the body of a POST, or a `response.create` event.

    Raises:
        Refused: it is no JSON object, a field that the gateway acts on has the wrong type, or there is too much of
            something.
    """
    return at_once(reading(text))


def reading(text: bytes, bounds: Bounds = _USUAL) -> Sliced[Asked]:
    """Read a create in slices. Raises as `read_create`."""
    try:
        members, items = yield from _split(text, bounds)
    except Excess as error:
        raise Refused(f"The request is beyond what the gateway reads. {error}", param=error.param) from None
    except (ValueError, RecursionError):
        raise Refused(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
            "library correctly. The API expects a JSON payload, but what was sent was not valid JSON.)"
        ) from None
    members = {name: value for name, value in members.items() if value.text != _NULL or name not in _TAKEN}
    model = _typed(members, "model", str, "a string")
    if not model:
        raise missing_parameter("model")
    return Asked(
        model=model,
        items=items,
        stream=_typed(members, "stream", bool, "a boolean") or False,
        store=_typed(members, "store", bool, "a boolean"),
        previous_response_id=_typed(members, "previous_response_id", str, "a string"),
        stream_id=_typed(members, "stream_id", str, "a string"),
        generate=_typed(members, "generate", bool, "a boolean"),
        plain=_plain(members, items),
        conversation=members.get("conversation"),
        members={name: value for name, value in members.items() if name not in _TAKEN},
    )


_Parts = tuple[dict[str, Encoded], Sequence[Encoded] | None]


def _split(text: bytes, bounds: Bounds) -> Sliced[_Parts]:
    """Return the members of a create but its input, and the items of that."""
    meter = Meter()
    if not is_short(text):
        return (yield from _split_long(text, bounds, meter))
    members = split_object(text, most=MOST_MEMBERS)
    given = members.pop("input", None)
    _check_size({name: len(value) for name, value in members.items()}, bounds)
    if meter.full(len(text) * _BYTE):
        yield
    if given is None or given.text[:1] != b"[":
        return members, (yield from _lone_item(None if given is None else given.text, meter))
    items = yield from split_array_sliced(given, bounds.items, "input", meter)
    return members, _checked(items)


def _split_long(text: bytes, bounds: Bounds, meter: Meter) -> Sliced[_Parts]:
    parts = yield from outline(text, "input", bounds.items)
    given = parts.pop("input", None)
    _check_size({name: part.end - part.start for name, part in parts.items()}, bounds)
    members = {name: Encoded(text[part.start : part.end]) for name, part in parts.items()}
    if given is None or given.elements is None:
        lone = None if given is None else (yield from copied(text, given.start, given.end, meter))
        return members, (yield from _lone_item(lone, meter))
    items: list[Encoded] = []
    for start, end in given.elements:
        items.append(Encoded((yield from copied(text, start, end, meter))))
        if meter.full(_ITEM):
            yield
    return members, _checked(items)


def _check_size(sizes: Mapping[str, int], bounds: Bounds) -> None:
    """Raise `Excess` when the members beside the input are too large."""
    whole = sum(sizes.values())
    if whole > bounds.fields:
        largest = max(sizes, key=sizes.__getitem__)
        raise Excess(
            f"All parameters but 'input' have {whole} bytes, '{largest}' alone {sizes[largest]}; they may have "
            f"{bounds.fields} (max_fields). Long contents belong into 'input'.",
            param=largest,
        )


def _lone_item(given: bytes | None, meter: Meter) -> Sliced[Sequence[Encoded] | None]:
    """Return the items of an input that is no array: a text, or nothing."""
    if given is None or given == _NULL:
        return None
    if given[:1] != b'"':
        raise invalid_type("input", "one of a string or array of input items", _like(given))
    parts = (b'{"type":"message","role":"user","content":', given, b"}")
    return (Encoded((yield from joined(parts, meter))),)


def _checked(items: Sequence[Encoded]) -> Sequence[Encoded]:
    for index, item in enumerate(items):
        if item.text[:1] != b"{":
            raise invalid_type(f"input[{index}]", "an object", _like(item.text))
    return items


_SAMPLES: Mapping[bytes, Any] = {b'"': "", b"[": [], b"{": {}, b"t": True, b"f": False, b"n": None}


def _like(text: bytes) -> Any:
    """Return some value of the type that a text is of, however long it is."""
    first = text[:1]
    if first in _SAMPLES:
        return _SAMPLES[first]
    return 0.0 if any(mark in text[:_LONGEST] for mark in b".eE") else 0


def _typed(members: Mapping[str, Encoded], name: str, kind: type, expected: str) -> Any:
    if name not in members:
        return None
    text = members[name].text
    try:
        value = from_json(text) if len(text) <= _LONGEST else _like(text)
    except (ValueError, RecursionError):  # a number that no float holds, or too deep a nesting
        value = _like(text)
    if value is not None and type(value) is not kind:
        raise invalid_type(name, expected, value)
    if len(text) > _LONGEST:
        raise invalid_value(name, f"Invalid '{name}': it is over {_LONGEST} bytes.")
    return value


def _plain(members: Mapping[str, Encoded], items: Sequence[Encoded] | None) -> str | None:
    """Return the field that no socket can serve, or that names a state which is the server's alone."""
    if _typed(members, "background", bool, "a boolean"):
        return "background"
    if "conversation" in members:
        return "conversation"
    if items is None and members.get("prompt", Encoded(_NULL)).text != _NULL:
        return "prompt"
    return None

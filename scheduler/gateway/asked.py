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

from pool.wire.codec import encoded, from_json, split_array, split_object
from pool.wire.events import Encoded
from pool.wire.refusal import Refused, invalid_type, missing_parameter
from scheduler.turns import TurnRequest

# What a create says about itself or its way, not to the model; the scheduler says each of these anew.
_TAKEN = frozenset(
    {"type", "stream", "stream_id", "generate", "input", "previous_response_id", "background", "conversation"}
)
_NULL = b"null"


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
        Refused: it is no JSON object, or a field that the gateway acts on has the wrong type.
    """
    try:
        members = split_object(text)
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
        items=_items(members),
        stream=_typed(members, "stream", bool, "a boolean") or False,
        store=_typed(members, "store", bool, "a boolean"),
        previous_response_id=_typed(members, "previous_response_id", str, "a string"),
        stream_id=_typed(members, "stream_id", str, "a string"),
        generate=_typed(members, "generate", bool, "a boolean"),
        plain=_plain(members),
        conversation=members.get("conversation"),
        members={name: value for name, value in members.items() if name not in _TAKEN},
    )


def _typed(members: Mapping[str, Encoded], name: str, kind: type, expected: str) -> Any:
    value = from_json(members[name].text) if name in members else None
    if value is not None and type(value) is not kind:
        raise invalid_type(name, expected, value)
    return value


def _plain(members: Mapping[str, Encoded]) -> str | None:
    """Return the field that no socket can serve, or that names a state which is the server's alone."""
    if _typed(members, "background", bool, "a boolean"):
        return "background"
    if "conversation" in members:
        return "conversation"
    if "input" not in members and members.get("prompt", Encoded(_NULL)).text != _NULL:
        return "prompt"
    return None


def _items(members: Mapping[str, Encoded]) -> Sequence[Encoded] | None:
    given = members.get("input")
    if given is None:
        return None
    first = given.text[:1]
    if first == b'"':
        return (encoded({"type": "message", "role": "user", "content": from_json(given.text)}),)
    if first != b"[":
        raise invalid_type("input", "one of a string or array of input items", from_json(given.text))
    items = split_array(given)
    for index, item in enumerate(items):
        if item.text[:1] != b"{":
            raise invalid_type(f"input[{index}]", "an object", from_json(item.text))
    return items

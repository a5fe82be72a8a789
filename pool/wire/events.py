"""Typed client and server events. Anything that this library has not heard of passes through untouched.

Every server event gives its JSON whole as `payload`; the typed fields beside it are only what warmline itself acts
on. Client events are what a caller may send; `codec` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from pool.wire.peek import whole

JSON = Mapping[str, Any]
NOTHING: JSON = {}


@frozen
class Encoded:
    """JSON that is already text: one value, or the members of an object without its braces."""

    text: bytes = field(repr=lambda text: f"<{len(text)} bytes>")

    def __len__(self) -> int:
        return len(self.text)


@frozen(kw_only=True)
class ResponseCreate:
    """Start a response. `fields` holds every other field of the request body, under the API's own names.

    `input` is a text, or items: parsed JSON or already encoded. `fields` may be already encoded, too (its
    members), because instructions and tools are sent on every turn and rarely change.
    """

    input: str | Sequence[JSON | Encoded] = ()
    previous_response_id: str | None = None
    stream_id: str | None = None  # the lane; only ever on a WebSocket
    generate: bool | None = None  # False: a warm-up; only ever on a WebSocket
    fields: JSON | Encoded = field(factory=dict)


@frozen(kw_only=True)
class ResponseSteer:
    """Say something to the response that is running. Only models that support it accept it."""

    previous_response_id: str
    input: str | Sequence[JSON | Encoded]


@frozen(kw_only=True)
class RawClientEvent:
    """Any other event, as parsed JSON with its `type`."""

    payload: JSON


ClientEvent = ResponseCreate | ResponseSteer | RawClientEvent


@frozen(kw_only=True)
class ServerEvent:
    """Any event: its type, its lane (None: the default lane or none at all), and its JSON whole.

    `text` is the JSON as it came, for whoever passes it on; empty where the event was not read from a message.
    """

    type: str
    _payload: JSON | None = field(default=None, repr=False)  # None: not parsed yet
    stream_id: str | None = None
    text: str = field(default="", repr=False, eq=False)

    @property
    def payload(self) -> JSON:
        """All of it, as parsed JSON; it is parsed when it is first asked for."""
        if self._payload is None:
            object.__setattr__(self, "_payload", whole(self.text) if self.text else NOTHING)
        assert self._payload is not None
        return self._payload


@frozen(kw_only=True)
class ResponseStarted(ServerEvent):
    """`response.created`, `response.in_progress` or `response.queued`."""

    response_id: str


@frozen(kw_only=True)
class OutputItemDone(ServerEvent):
    """`response.output_item.done`: one whole item of the output."""

    output_index: int
    item: JSON = field(repr=False)


@frozen(kw_only=True)
class ResponseEnded(ServerEvent):
    """`response.completed`, `response.incomplete` or `response.failed`: the terminal event."""

    response_id: str
    status: str
    response: JSON = field(repr=False)


@frozen(kw_only=True)
class ErrorEvent(ServerEvent):
    """`error`, in either shape: nested under `error`, or flat as on HTTP streams."""

    message: str
    code: str | None = None
    kind: str | None = None  # the error's own `type`, e.g. invalid_request_error
    param: str | None = None
    status: int | None = None
    headers: JSON = field(default=NOTHING, repr=False)


@frozen(kw_only=True)
class SteerEvent(ServerEvent):
    """`response.steer.accepted`, `.pending` or `.failed`. `previous_response_id` is the steered response."""

    previous_response_id: str | None = None
    steer_id: str | None = None  # None: it was never accepted


TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
STARTED = frozenset({"response.created", "response.in_progress", "response.queued"})
STEER = frozenset({"response.steer.accepted", "response.steer.pending", "response.steer.failed"})

"""How the server's events are put to a client: as they came, but for what was the gateway's own doing. Pure.

Theory of operation
    Upstream an event carries the name of the lane that the gateway chose; to the client it carries the client's lane
    or none. The few events that hold the whole response say which parent the gateway gave upstream; to the client
    they say the one that the client gave. And where the gateway has asked for encrypted reasoning, so that it could
    replay it, a client that has not does not see it.

    Events are edited as text, because reading and writing JSON anew for each would cost more than everything else
    that the gateway does with it. A member's name may stand in the text once more, within a string, but there its
    quotes are escaped; where it is found twice all the same, or not at all, the event is written anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from attrs import frozen

from pool.wire.codec import to_json
from pool.wire.events import STARTED, TERMINAL, ServerEvent

_WHOLE = STARTED | TERMINAL
_WITH_ITEMS = _WHOLE | {"response.output_item.added", "response.output_item.done"}
_PARENT = re.compile(r'"previous_response_id": ?(?:null|"[^"\\]*")')


@frozen(kw_only=True)
class Voice:
    """How one client is told of one turn: the parent and the lane that it gave, and what it must not see."""

    parent: str | None = None
    lane: str | None = None
    hides_reasoning: bool = False  # encrypted, which it has not asked for

    def text(self, event: ServerEvent) -> bytes:
        """Return an event's JSON as this client gets it."""
        text: str | None = event.text or None
        if self.hides_reasoning and event.type in _WITH_ITEMS and '"encrypted_content"' in event.text:
            text = None
        if text is not None and event.type in _WHOLE:
            text = reparented(text, self.parent)
        if text is not None and event.stream_id != self.lane:
            text = relabelled(text, event.stream_id, self.lane)
        return to_json(self._retold(event.payload)) if text is None else text.encode()

    def response(self, response: Mapping[str, Any]) -> dict[str, Any]:
        """Return a whole response as this client gets it."""
        told = dict(response)
        if "previous_response_id" in told or self.parent is not None:
            told["previous_response_id"] = self.parent
        output = told.get("output")
        if self.hides_reasoning and isinstance(output, list | tuple):
            told["output"] = [without_seal(item) for item in output]
        return told

    def broken_off(self, response: Mapping[str, Any], number: int, message: str) -> bytes:
        """Return the end of a response that the client has seen the beginning of, and that goes no further."""
        error = {"code": "server_error", "message": message}
        shown = {**self.response(response), "status": "failed", "error": error}
        event = {"type": "response.failed", "sequence_number": number, "response": shown}
        return to_json(event if self.lane is None else {**event, "stream_id": self.lane})

    def _retold(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        told = {name: value for name, value in payload.items() if name != "stream_id"}
        if self.lane is not None:
            told["stream_id"] = self.lane
        if isinstance(told.get("response"), Mapping):
            told["response"] = self.response(told["response"])
        if self.hides_reasoning and "item" in told:
            told["item"] = without_seal(told["item"])
        return told


def without_seal(item: Any) -> Any:
    """Return an item without its encrypted content, when it is reasoning."""
    if isinstance(item, Mapping) and item.get("type") == "reasoning" and "encrypted_content" in item:
        return {name: value for name, value in item.items() if name != "encrypted_content"}
    return item


def reparented(text: str, parent: str | None) -> str | None:
    """Return an event's text with another parent in its response; None when that is not plain to do."""
    if text.count('"previous_response_id"') != 1:
        return None
    said = to_json(parent).decode()
    text, found = _PARENT.subn(lambda _: f'"previous_response_id":{said}', text, count=1)
    return text if found else None


def relabelled(text: str, old: str | None, new: str | None) -> str | None:
    """Return an event's text with another lane's name, or none; None when that is not plain to do."""
    if old is None:
        assert new is not None
        return f'{text[:-1]},"stream_id":"{new}"}}' if text.endswith("}") else None
    if text.count('"stream_id"') != 1:
        return None
    for name in (f'"stream_id":"{old}"', f'"stream_id": "{old}"'):
        start = text.find(name)
        if start < 0:
            continue
        end = start + len(name)
        if new is not None:
            return f'{text[:start]}"stream_id":"{new}"{text[end:]}'
        if text[start - 1] == ",":
            return text[: start - 1] + text[end:]
        if text[end] == ",":
            return text[:start] + text[end + 1 :]
        if text[start - 2 : start] == ", ":
            return text[: start - 2] + text[end:]
        return None
    return None


@lru_cache(maxsize=256)
def _named(kind: str) -> bytes:
    return b"event: %b\ndata: " % " ".join(kind.split()).encode()


def sse(kind: str, text: bytes) -> bytes:
    """Return a server-sent event."""
    if b"\n" in text or b"\r" in text:  # between its members: within a string they are escaped
        text = text.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"%b%b\n\n" % (_named(kind), text)

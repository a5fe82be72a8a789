"""What is read of an answer that is passed on to a caller of the gateway's own key: new ids, and tokens used. Pure.

Theory of operation
    The server's answer says what the request created and what it used. Both have to be known before the client sees
    the end of the answer: a client may use an id at once, and a limit must hold for its next request.

    JSON is kept back until it is whole, then read; lists are cut down to what is the caller's. Server-sent events
    are read as they pass. Anything else (the content of a file, audio) says neither. Where an answer ought to have
    said how many tokens it used and did not, they are estimated from its size and the request's, so that leaving the
    figure out is no way around a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from attrs import define, field

from pool.errors import RemoteProtocolError
from pool.sse import EventReader
from pool.wire.codec import from_json, to_json
from scheduler.attempts import BYTES_A_TOKEN
from scheduler.gateway.access import Operation
from scheduler.gateway.references import created

MOST_KEPT = 64 * 1024 * 1024  # bytes of JSON, or of one event
_RESULTS = ("output_file_id", "error_file_id")  # of a batch: files that the server makes for it
_WITH_ITEMS = frozenset({"responses", "conversations"})  # whose lists are of items that may be referred to
_MENTIONS = (b'"response"', b'"item"', b'"usage"')  # of the events that say anything of interest here


class AnswerTooLarge(Exception):
    """JSON of over `MOST_KEPT` bytes, which cannot be read."""


@define(eq=False)
class LentAnswer:
    """One answer, as it passes. `family`: of the request, e.g. `files`; `size`: of the request's body, in bytes."""

    operation: Operation
    family: str
    size: int = 0
    kind: Literal["json", "events", "opaque"] = field(default="opaque", init=False)
    ids: list[str] = field(factory=list, init=False)  # that are the caller's from now on
    status: int = field(default=0, init=False)
    _tokens: int | None = field(default=None, init=False)  # as the server counted
    _passed: int = field(default=0, init=False)  # bytes
    _parts: list[bytes] = field(factory=list, init=False)
    _events: EventReader = field(factory=lambda: EventReader(MOST_KEPT), init=False)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """The head has come. `headers` have lower-case names."""
        self.status = status
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            self.kind = "opaque"  # it was not asked for
        elif kind == "application/json" or kind.endswith("+json"):
            self.kind = "json"
        elif kind == "text/event-stream":
            self.kind = "events"

    @property
    def succeeded(self) -> bool:
        """The server has done what was asked."""
        return 200 <= self.status < 300

    def feed(self, part: bytes) -> None:
        """Take a part. JSON is kept until `whole`. Raises `AnswerTooLarge`."""
        self._passed += len(part)
        if self.kind == "json":
            if self._passed > MOST_KEPT:
                raise AnswerTooLarge
            self._parts.append(part)
        elif self.kind == "events":
            try:
                for data in self._events.feed(part):
                    if any(name in data for name in _MENTIONS):
                        self._read(_parsed(data))
            except RemoteProtocolError:
                self.kind = "opaque"

    def whole(self) -> tuple[bytes, Any]:
        """Return the JSON that has come, and its value; None where it is none."""
        content = b"".join(self._parts)
        value = _parsed(content)
        if self.succeeded:
            self._read(value)
        return content, value

    def _read(self, value: Any) -> None:
        if not isinstance(value, dict):
            return
        self.ids += self._created(value)
        response = value.get("response")
        for one in (value, response if isinstance(response, dict) else {}):
            usage = one.get("usage")
            total = usage.get("total_tokens") if isinstance(usage, dict) else None
            if isinstance(total, int) and not isinstance(total, bool) and total >= 0:
                self._tokens = max(self._tokens or 0, total)

    def _created(self, value: Mapping[str, Any]) -> Iterator[str]:
        operation = self.operation
        if self.kind == "events" or self.family == "responses":
            yield from created(value)
        if operation.creates:
            yield from _texts(value, ("id",))
        elif operation.names is not None:
            yield from _texts(value, _RESULTS)
            if self.family == "uploads" and isinstance(value.get("file"), dict):
                yield from _texts(value["file"], ("id",))
            if self.family in _WITH_ITEMS and isinstance(value.get("data"), list):
                yield from (
                    name for one in value["data"] if isinstance(one, dict) for name in _texts(one, ("id",))
                )

    @property
    def tokens(self) -> int:
        """How many tokens to charge."""
        if not self.operation.metered or not self.succeeded:
            return self._tokens or 0
        return self._tokens if self._tokens is not None else (self.size + self._passed) // BYTES_A_TOKEN


def listed_ids(value: Any) -> list[str]:
    """Return the ids of what a list shows."""
    data = value.get("data") if isinstance(value, dict) else None
    return [name for one in data or () if isinstance(one, dict) for name in _texts(one, ("id",))]


def without(value: Any, hidden: Iterable[str]) -> bytes | None:
    """Return a list without the resources of these ids; None when it is no list, and so cannot be shown."""
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, list):
        return None
    gone = frozenset(hidden)
    left = [
        one
        for one in data
        if isinstance(one, dict) and isinstance(one.get("id"), str) and one["id"] not in gone
    ]
    ends = {"first_id": left[0]["id"] if left else None, "last_id": left[-1]["id"] if left else None}
    return to_json({**value, "data": left, **{name: end for name, end in ends.items() if name in value}})


def _texts(value: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        found = value.get(name)
        if isinstance(found, str):
            yield found


def _parsed(content: bytes) -> Any:
    try:
        return from_json(content)
    except (ValueError, RecursionError):
        return None

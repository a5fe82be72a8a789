"""From the notes that the event loop took to the lines of a trace. Pure, and run in the writer's thread.

Theory of operation
    The event loop only keeps what it was shown and when. Here it becomes a line: what matters of a message without
    its contents, and whose it was. Messages name no conversation, so the scribe knows what is open on each lane
    from the creates that it has seen leave; what comes for nobody is a stray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field

from pool.errors import ResponseFailed
from pool.redaction import redacted
from pool.wire.codec import to_json
from pool.wire.events import TERMINAL, ClientEvent, ResponseCreate, ResponseSteer
from scheduler.trace.scrub import Scrubber

MOVING = " (moving)"
FREE = frozenset({"error", "reason"})  # facts in somebody else's words
KINDS = 100  # of deltas that are remembered
TOKENS = ("input_tokens", "output_tokens", "total_tokens")


@define(eq=False)  # not frozen: made for every frame, and frozen ones take three times as long to make
class Out:
    """A message left."""

    at: float
    prefix: str  # of its pool
    conn: object
    stream_id: str | None
    holder: str
    event: ClientEvent
    size: int
    text: bytes | None  # None: contents are not kept


@define(eq=False)
class In:
    """A message came."""

    at: float
    prefix: str
    conn: object
    payload: Mapping[str, Any]
    size: int
    text: str | bytes | None


@define(eq=False)
class Fact:
    """Something else happened."""

    at: float
    prefix: str
    what: str
    facts: Mapping[str, object]


Note = Out | In | Fact


@define
class _Open:
    conv: str
    head: bytes  # of the lines of its deltas


@define(eq=False)
class Scribe:
    """Writes lines. `start` is subtracted from all times; `contents`: errors may quote what was said."""

    scrub: Scrubber
    start: float = 0.0
    contents: bool = False
    _kinds: dict[str, bytes] = field(factory=dict, init=False)  # kinds of deltas, as JSON
    _open: dict[str, dict[str | None, _Open]] = field(factory=dict, init=False)  # by connection, by lane

    def line(self, note: Note) -> bytes:
        """Return the line for a note, without its line break."""
        match note:
            case In():
                return self._came(note)
            case Out():
                return self._left(note)
            case Fact():
                return self._happened(note)

    def _left(self, note: Out) -> bytes:
        conn = f"{note.prefix}{note.conn}"
        conv = _named(note.prefix, note.holder)
        line = self._frame("out", note.at, conn, note.stream_id, conv, note.size)
        match note.event:
            case ResponseCreate() as create:
                whose = {"lane": line["lane"], "conv": conv} if conv else {"lane": line["lane"]}
                mine = _Open(conv, b',"what":"in",' + to_json(whose)[1:-1])
                self._open.setdefault(conn, {})[note.stream_id] = mine
                line["type"] = "response.create"
                line["items"] = 1 if isinstance(create.input, str) else len(create.input)
                if create.previous_response_id is not None:
                    line["parent"] = create.previous_response_id
                if create.generate is False:
                    line["warm_up"] = True
            case ResponseSteer() as steer:
                line |= {"type": "response.steer", "parent": steer.previous_response_id}
            case raw:
                line["type"] = str(raw.payload.get("type"))
        return self._with_text(line, note.text)

    def _came(self, note: In) -> bytes:
        conn, payload = f"{note.prefix}{note.conn}", note.payload
        kind, stream_id = payload["type"], payload.get("stream_id")
        of = self._open.get(conn, {})
        found = stream_id if stream_id in of or stream_id is not None else next(iter(of), None)
        mine = of.get(found)
        if mine is not None and note.text is None and kind.endswith(".delta"):
            return self._delta(note, mine, kind)
        line = self._frame("in", note.at, conn, found, "" if mine is None else mine.conv, note.size)
        line["type"] = kind
        sequence = payload.get("sequence_number")
        if type(sequence) is int:
            line["seq"] = sequence
        delta = payload.get("delta")
        if isinstance(delta, str):
            line["chars"] = len(delta)
        response, item = payload.get("response"), payload.get("item")
        if isinstance(response, dict):
            line |= _response_of(response)
        if isinstance(item, dict):
            line["item"] = _short(item.get("type"))
            if "name" in item:
                line["name"] = _short(item["name"])
        if kind == "error":
            line |= _error_of(payload)
        elif mine is None:
            line["stray"] = True
        if kind in TERMINAL or kind == "error":
            of.pop(found, None)
        return self._with_text(line, note.text)

    def _delta(self, note: In, mine: _Open, kind: str) -> bytes:
        """Return the line of a delta: most lines are, so it is put together by hand."""
        name = self._kinds.get(kind)
        if name is None:
            name = to_json(kind)
            if len(self._kinds) < KINDS:
                self._kinds[kind] = name
        delta, sequence = note.payload.get("delta"), note.payload.get("sequence_number")
        line = b'{"at":%.6f%b,"bytes":%d,"type":%b' % (note.at - self.start, mine.head, note.size, name)
        if type(sequence) is int:
            line += b',"seq":%d' % sequence
        return line + (b',"chars":%d}' % len(delta) if type(delta) is str else b"}")

    def _frame(
        self, what: str, at: float, conn: str, stream_id: str | None, conv: str, size: int
    ) -> dict[str, Any]:
        line: dict[str, Any] = {"at": round(at - self.start, 6), "what": what}
        line["lane"] = f"{conn}/{stream_id or ('http' if conn.rpartition('.')[2][:1] == 'h' else 'lane')}"
        if conv:
            line["conv"] = conv
        line["bytes"] = size
        return line

    def _with_text(self, line: dict[str, Any], text: str | bytes | None) -> bytes:
        if text is None:
            return to_json(line)
        line["text"] = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self.scrub(to_json(line))

    def _happened(self, note: Fact) -> bytes:
        line: dict[str, Any] = {"at": round(note.at - self.start, 6), "what": note.what}
        free = False
        for name, value in note.facts.items():
            if value is None:
                continue
            if name == "conv" and isinstance(value, str):
                value = _named(note.prefix, value)
            elif name == "cut" and isinstance(value, list):
                value = [_named(note.prefix, str(one)) for one in value]
            elif name in ("conn", "lane"):
                value = f"{note.prefix}{value}"
            elif isinstance(value, BaseException):
                value = str(value) if self.contents else _without_words(value)
            elif isinstance(value, float):
                value = round(value, 6)
            free = free or name in FREE
            line[name] = value
        if note.what == "ended":
            self._open.pop(str(line.get("conn")), None)
        text = to_json(line)
        return self.scrub(text) if free else text


def _named(prefix: str, holder: str) -> str:
    """Return a conversation's name; two pools may each have one of the same name."""
    return f"{prefix}{holder.removesuffix(MOVING)}" if holder else ""


def _without_words(error: BaseException) -> str:
    """Return what an error is. A server's own words are left out, for they may quote what was said."""
    if not isinstance(error, ResponseFailed):
        return str(error)
    facts = (error.status, error.code or error.kind, error.param and f"({error.param})")
    return " ".join(_short(fact) for fact in facts if fact) or "the response failed"


def _short(value: object) -> str:
    return redacted(str(value))[:80]  # half a key would not be found


def _response_of(response: Mapping[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {}
    for name, fact in (("id", "response"), ("status", "status"), ("model", "model")):
        if isinstance(response.get(name), str):
            line[fact] = redacted(response[name])
    usage = response.get("usage")
    if isinstance(usage, dict):
        details = usage.get("input_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        line["usage"] = {name: usage[name] for name in TOKENS if type(usage.get(name)) is int}
        line["usage"]["cached_tokens"] = cached if type(cached) is int else 0
    return line


def _error_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return which error it is, not its message: that may quote what was sent."""
    error = payload.get("error")
    error = error if isinstance(error, dict) else payload
    line = {name: _short(error[name]) for name in ("code", "param") if isinstance(error.get(name), str)}
    status = payload.get("status")
    return {**line, "status": status} if type(status) is int else line

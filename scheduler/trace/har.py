"""Export a trace as a HAR 1.2 file that the developer tools of browsers open. Pure: values in, values out.

A connection is one entry of the kind `websocket`, with its messages in `_webSocketMessages`, as Chrome writes them:
`type` (send or receive), `time` (Unix seconds), `opcode` (1: text) and `data`. A turn over HTTP is an entry of its
own. Contents that were not recorded are replaced by what was: the kind of the message, whose it was, its size.
Headers and keys are not in a trace, so there are none here.

Sources: the HAR 1.2 specification (w3c.github.io/web-performance/specs/HAR/Overview.html), and Chrome's exporter.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field

from pool.wire.codec import to_json
from scheduler.trace.records import Line
from scheduler.trace.story import Connection, Story, cause_of

TEXT = 1  # opcode
SHOWN = (
    "type",
    "conv",
    "lane",
    "response",
    "parent",
    "items",
    "status",
    "code",
    "item",
    "name",
    "seq",
    "bytes",
)


def har_of(story: Story, lines: Iterable[Line]) -> dict[str, Any]:
    """Return the HAR of a trace; `lines` are those that the story was told from."""
    messages = _Messages(story.header.started)
    for line in lines:
        messages.take(line)
    entries = [
        _entry(story, connection, messages.of.get(connection.name, []), messages.statuses)
        for connection in story.connections.values()
        if connection.opened is not None or connection.frames
    ]
    entries.sort(key=lambda entry: str(entry["startedDateTime"]))
    name, _, version = (story.header.software or "warmline").partition(" ")
    return {
        "log": {
            "version": "1.2",
            "creator": {"name": name, "version": version or "0"},
            "pages": [],
            "entries": entries,
        }
    }


@define(eq=False)
class _Messages:
    """The messages of each connection, and the status of the answer if it was over HTTP."""

    started: float
    of: dict[str, list[dict[str, Any]]] = field(factory=dict, init=False)
    statuses: dict[str, int] = field(factory=dict, init=False)

    def take(self, line: Line) -> None:
        if line["what"] not in ("out", "in") or not isinstance(line.get("lane"), str):
            return
        text, name = line.get("text"), line["lane"].partition("/")[0]
        if line["what"] == "in":  # an error that comes first is no event of a stream, but the whole answer
            status = line.get("status") if line.get("type") == "error" else None
            self.statuses.setdefault(name, status if type(status) is int else 200)
        self.of.setdefault(name, []).append(
            {
                "type": "send" if line["what"] == "out" else "receive",
                "time": self.started + float(line["at"]),
                "opcode": TEXT,
                "data": text if isinstance(text, str) else _instead(line),
            }
        )


def _instead(line: Line) -> str:
    """Return what is known of a message whose contents were left out."""
    return to_json({name: line[name] for name in SHOWN if name in line} | {"contents": "left out"}).decode()


def _entry(
    story: Story, connection: Connection, messages: list[dict[str, Any]], statuses: Mapping[str, int]
) -> dict[str, Any]:
    http = connection.name.rpartition(".")[2].startswith("h")
    dial = connection.dial or 0.0
    times = [message["time"] - story.header.started for message in messages]
    first = connection.opened - dial if connection.opened is not None else min(times, default=0.0)
    last = connection.ended if connection.ended is not None else max([first + dial, *times])
    url = _url(story, connection.name, http=http)
    request: dict[str, Any] = {
        "method": "POST" if http else "GET",
        "url": url,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [],
        "queryString": [],
        "headersSize": -1,
        "bodySize": sum(one.size for one in connection.exchanges) if http else 0,
    }
    received = sum(one.received for one in connection.exchanges)
    entry: dict[str, Any] = {
        "startedDateTime": _date(story.header.started + first),
        "time": _millis(last - first),
        "request": request,
        "response": _response(statuses.get(connection.name, 0) if http else 101, received, http=http),
        "cache": {},
        "timings": _timings(connection, first, last, dial, http=http),
        "connection": connection.name,
    }
    if connection.end is not None:
        entry["comment"] = f"ended: {cause_of(connection.end)}"
    if http:
        return entry | {"_resourceType": "fetch"}
    return entry | {"_resourceType": "websocket", "_webSocketMessages": messages}


def _response(status: int, received: int, *, http: bool) -> dict[str, Any]:
    return {
        "status": status,  # 0, as browsers write it: no answer came
        "statusText": HTTPStatus(status).phrase if status in set(HTTPStatus) else "",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [],
        "content": {
            "size": received if http else 0,
            "mimeType": "text/event-stream" if http and status == 200 else "x-unknown",
        },
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": received if http else -1,
    }


def _timings(
    connection: Connection, first: float, last: float, dial: float, *, http: bool
) -> Mapping[str, float]:
    if http and connection.exchanges:
        waited = connection.exchanges[0].first or 0.0
        return {"send": 0, "wait": _millis(waited), "receive": _millis(max(0.0, last - first - waited))}
    return {
        "blocked": -1,
        "dns": -1,
        "connect": _millis(dial),
        "ssl": -1,
        "send": 0,
        "wait": 0,
        "receive": _millis(max(0.0, last - first - dial)),
    }


def _url(story: Story, name: str, *, http: bool) -> str:
    number = name[1:].partition(".")[0] if name.startswith("p") else "1"
    pool = next((line for line in story.pools if str(line.get("pool")) == number), None)
    url = str(pool["url"]) if pool is not None and "url" in pool else "wss://unknown/"
    if not http:
        return url
    parts = urlsplit(url)
    return parts._replace(scheme={"ws": "http"}.get(parts.scheme, "https")).geturl()


def _millis(value: float) -> float:
    return round(max(0.0, value) * 1000, 3)


def _date(unix: float) -> str:
    return datetime.datetime.fromtimestamp(unix, datetime.UTC).isoformat(timespec="milliseconds")

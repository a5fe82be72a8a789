"""The HAR export, held against the rules of HAR 1.2 and against what Chrome reads and writes."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pool.wire.codec import from_json
from scheduler.trace.har import har_of
from scheduler.trace.reader import open_reading
from scheduler.trace.tell import tell
from tests.trace.support import loops, record, turn_lines, write

NUMBER, TEXT, LIST, OBJECT = (int, float), str, list, dict
# Required members and their types (HAR 1.2); optional ones are checked where they occur.
RULES: Mapping[str, Mapping[str, Any]] = {
    "log": {"version": TEXT, "creator": OBJECT, "entries": LIST},
    "creator": {"name": TEXT, "version": TEXT},
    "entry": {
        "startedDateTime": TEXT,
        "time": NUMBER,
        "request": OBJECT,
        "response": OBJECT,
        "cache": OBJECT,
        "timings": OBJECT,
    },
    "request": {
        "method": TEXT,
        "url": TEXT,
        "httpVersion": TEXT,
        "cookies": LIST,
        "headers": LIST,
        "queryString": LIST,
        "headersSize": NUMBER,
        "bodySize": NUMBER,
    },
    "response": {
        "status": NUMBER,
        "statusText": TEXT,
        "httpVersion": TEXT,
        "cookies": LIST,
        "headers": LIST,
        "content": OBJECT,
        "redirectURL": TEXT,
        "headersSize": NUMBER,
        "bodySize": NUMBER,
    },
    "content": {"size": NUMBER, "mimeType": TEXT},
    "timings": {"send": NUMBER, "wait": NUMBER, "receive": NUMBER},
}
OPTIONAL = {
    "entry": {"connection", "comment", "pageref", "serverIPAddress"},
    "timings": {"blocked", "dns", "connect", "ssl"},
}


def follow(rule: str, value: Any) -> None:
    assert isinstance(value, dict), rule
    for name, kind in RULES[rule].items():
        assert name in value, f"{rule}.{name} is required"
        assert isinstance(value[name], kind), f"{rule}.{name} = {value[name]!r}"
        assert not isinstance(value[name], bool)
    for name in value.keys() - RULES[rule].keys() - OPTIONAL.get(rule, set()) - {"pages"}:
        assert name.startswith("_"), (
            f"{rule}.{name} is no member of HAR 1.2: custom ones begin with an underscore"
        )


def check(har: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Hold a HAR against the rules; return its entries."""
    assert list(har) == ["log"]
    follow("log", har["log"])
    follow("creator", har["log"]["creator"])
    assert har["log"]["version"] == "1.2"
    starts = []
    for entry in har["log"]["entries"]:
        follow("entry", entry)
        for part in ("request", "response", "timings"):
            follow(part, entry[part])
        follow("content", entry["response"]["content"])
        start = datetime.datetime.fromisoformat(entry["startedDateTime"])
        assert start.tzinfo is not None
        starts.append(start.timestamp())
        # The time is the sum of the timings that apply; -1 says that one does not. ssl is a part of connect.
        parts = [took for name, took in entry["timings"].items() if took >= 0 and name != "ssl"]
        assert entry["time"] == pytest.approx(sum(parts), abs=0.01)
        for message in entry.get("_webSocketMessages", ()):
            assert set(message) == {"type", "time", "opcode", "data"}
            assert message["type"] in ("send", "receive")
            assert message["opcode"] == 1
            assert isinstance(message["data"], str)
            assert (
                start.timestamp() - 0.01 <= message["time"] <= start.timestamp() + entry["time"] / 1000 + 0.01
            )
    assert starts == sorted(starts)
    entries: list[dict[str, Any]] = har["log"]["entries"]
    return entries


def exported(path: str) -> list[dict[str, Any]]:
    reading = open_reading(path)
    return check(har_of(tell(reading), reading))


def test_a_socket_with_its_contents(tmp_path: Path) -> None:
    (entry,) = exported(record(tmp_path / "t", loops(2, script=lambda _: "calls=1"), contents=True))
    assert entry["_resourceType"] == "websocket"
    assert (entry["request"]["method"], entry["response"]["status"]) == ("GET", 101)
    assert entry["request"]["url"] == "ws://server/v1/responses"
    sent = [from_json(one["data"]) for one in entry["_webSocketMessages"] if one["type"] == "send"]
    assert [create["type"] for create in sent] == ["response.create"] * 4
    ends = [
        from_json(one["data"]) for one in entry["_webSocketMessages"] if "response.completed" in one["data"]
    ]
    assert len(ends) == 4


def test_without_contents_it_says_what_is_known(tmp_path: Path) -> None:
    (entry,) = exported(record(tmp_path / "t", loops(1, script=lambda _: "calls=0")))
    first = from_json(entry["_webSocketMessages"][0]["data"])
    assert (first["type"], first["conv"], first["contents"]) == ("response.create", "task-0", "left out")


def test_http_turns_lost_sockets_and_a_second_pool(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t",
        {"at": 0.0, "what": "pool", "pool": 1, "endpoint": "openai", "url": "wss://one/v1/responses"},
        {"at": 0.0, "what": "pool", "pool": 2, "endpoint": "xai", "url": "wss://two/v1/responses"},
        {"at": 0.4, "what": "dialled", "conn": "p2.c1", "seconds": 0.4},
        *turn_lines("a", 1, 0.5, lane="p2.c1/lane"),
        {"at": 2.0, "what": "ended", "conn": "p2.c1", "lost": True, "code": 1006, "age": 1.6, "cut": []},
        *turn_lines("b", 1, 3.0, lane="h1/http", first=0.2),
    )
    socket, http = exported(path)
    assert (socket["request"]["url"], socket["time"], socket["timings"]["connect"]) == (
        "wss://two/v1/responses",
        2000,
        400,
    )
    assert socket["comment"] == "ended: by the server, code 1006"
    assert (http["request"]["method"], http["request"]["url"]) == ("POST", "https://one/v1/responses")
    assert (http["response"]["status"], http["timings"]["wait"], http["time"]) == (200, 200, 1000)
    assert "_webSocketMessages" not in http


def test_a_turn_that_http_refused(tmp_path: Path) -> None:
    lane = {"lane": "h1/http", "conv": "b"}
    refused = {**lane, "what": "in", "bytes": 80, "type": "error", "status": 429, "code": "rate_limit"}
    create = {"what": "out", "conv": "b", "bytes": 300, "type": "response.create", "items": 1}
    path = write(
        tmp_path / "t",
        {"at": 1.0, **create, "lane": "h1/http"},
        {"at": 1.2, **refused},
        {"at": 2.0, **create, "lane": "h2/http"},
        *turn_lines("b", 1, 3.0, lane="h3/http"),
        {"at": 5.0, **refused, "lane": "h3/http"},
    )
    answers = [(entry["response"]["status"], entry["response"]["statusText"]) for entry in exported(path)]
    assert answers == [(429, "Too Many Requests"), (0, ""), (200, "OK")]


def test_an_empty_trace(tmp_path: Path) -> None:
    assert exported(write(tmp_path / "t")) == []

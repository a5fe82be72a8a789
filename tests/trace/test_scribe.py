"""From notes to lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pool.wire.codec import from_json
from pool.wire.events import RawClientEvent, ResponseCreate, ResponseSteer
from scheduler.trace.scribe import Fact, In, Out, Scribe
from scheduler.trace.scrub import Scrubber


def scribe() -> Scribe:
    return Scribe(Scrubber(), start=100.0)


def sent(writer: Scribe, holder: str = "task", lane: str | None = "lane-01", **create: Any) -> dict[str, Any]:
    note = Out(100.5, "", "c1", lane, holder, ResponseCreate(**create), 12, None)
    line: dict[str, Any] = from_json(writer.line(note))
    return line


def came(writer: Scribe, conn: str = "c1", **payload: Any) -> dict[str, Any]:
    line: dict[str, Any] = from_json(writer.line(In(101.0, "", conn, payload, 34, None)))
    return line


def test_a_create() -> None:
    line = sent(scribe(), input=[{"type": "message"}, {"type": "message"}], previous_response_id="resp_1")
    assert line == {
        "at": 0.5,
        "what": "out",
        "lane": "c1/lane-01",
        "conv": "task",
        "bytes": 12,
        "type": "response.create",
        "items": 2,
        "parent": "resp_1",
    }


def test_a_warm_up_belongs_to_the_conversation_that_moves() -> None:
    line = sent(scribe(), holder="task (moving)", input="x", generate=False)
    assert (line["conv"], line["warm_up"], line["items"]) == ("task", True, 1)


def test_other_client_events() -> None:
    writer = scribe()
    steer = Out(100.0, "", "c1", None, "", ResponseSteer(previous_response_id="r", input="x"), 5, None)
    assert from_json(writer.line(steer))["parent"] == "r"
    raw = Out(100.0, "", "c1", None, "", RawClientEvent(payload={"type": "x.y"}), 5, None)
    assert from_json(writer.line(raw))["type"] == "x.y"


def test_what_comes_is_the_conversations_until_the_end() -> None:
    writer = scribe()
    sent(writer)
    usage = {
        "input_tokens": 9,
        "output_tokens": 2,
        "total_tokens": 11,
        "input_tokens_details": {"cached_tokens": 4},
    }
    first = came(
        writer, type="response.created", stream_id="lane-01", response={"id": "resp_2", "model": "m"}
    )
    assert (first["conv"], first["response"], first["model"]) == ("task", "resp_2", "m")
    delta = came(
        writer, type="response.output_text.delta", stream_id="lane-01", delta="hello", sequence_number=3
    )
    assert (delta["chars"], delta["seq"], "hello" in str(delta)) == (5, 3, False)
    item = {"type": "function_call", "name": "look", "arguments": "{}"}
    done = came(writer, type="response.output_item.done", stream_id="lane-01", item=item)
    assert (done["item"], done["name"], "arguments" in done) == ("function_call", "look", False)
    end = came(
        writer, type="response.completed", stream_id="lane-01", response={"id": "resp_2", "usage": usage}
    )
    assert end["usage"] == {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11, "cached_tokens": 4}
    late = came(writer, type="response.output_text.delta", stream_id="lane-01", delta="x")
    assert late["stray"] is True
    assert "conv" not in late


def test_a_server_that_ignores_lane_names() -> None:
    writer = scribe()
    sent(writer)
    line = came(writer, type="response.created", response={"id": "resp_2"})
    assert (line["conv"], line["lane"]) == ("task", "c1/lane-01")


def test_an_error_is_known_by_its_code_and_not_by_its_words() -> None:
    writer = scribe()
    sent(writer)
    error = {"code": "invalid_value", "message": "Invalid value: 'a private matter'", "param": "input"}
    line = came(writer, type="error", status=400, error=error)
    assert (line["code"], line["status"], line["param"], line["conv"]) == (
        "invalid_value",
        400,
        "input",
        "task",
    )
    assert "private" not in str(line)
    assert "stray" not in came(writer, type="error", status=500), "it may be about the connection"


def test_facts() -> None:
    facts: Mapping[str, object] = {
        "conn": "c2",
        "lane": "c2/lane-01",
        "conv": "task (moving)",
        "waited": 0.123456789,
        "none": None,
        "error": "Bearer abcdefghijklmnop",
    }
    line = from_json(scribe().line(Fact(100.25, "p2.", "ended", facts)))
    assert line == {
        "at": 0.25,
        "what": "ended",
        "conn": "p2.c2",
        "lane": "p2.c2/lane-01",
        "conv": "p2.task",
        "waited": 0.123457,
        "error": "[hidden]",
    }


def test_what_a_lost_connection_had_open_is_forgotten() -> None:
    writer = scribe()
    sent(writer)
    writer.line(Fact(101.0, "", "ended", {"conn": "c1"}))
    assert came(writer, type="response.created", stream_id="lane-01")["stray"] is True


def test_contents_when_asked_for() -> None:
    writer = scribe()
    create = ResponseCreate(input="x")
    line = from_json(writer.line(Out(100.0, "", "h1", None, "task", create, 3, b'"\xff"')))
    assert (line["lane"], line["text"]) == ("h1/http", '"\ufffd"')
    assert from_json(writer.line(In(100.0, "", "h1", {"type": "x"}, 3, '{"a":1}')))["text"] == '{"a":1}'


def test_two_pools_may_have_conversations_of_the_same_name() -> None:
    writer = scribe()
    note = Out(100.0, "p2.", "c1", None, "task", ResponseCreate(input="x"), 3, None)
    assert from_json(writer.line(note))["conv"] == "p2.task"
    line = from_json(writer.line(In(100.0, "p2.", "c1", {"type": "response.created"}, 3, None)))
    assert (line["conv"], line["lane"]) == ("p2.task", "p2.c1/lane")
    ended = Fact(100.0, "p2.", "ended", {"conn": "c1", "cut": ["task", ""]})
    assert from_json(writer.line(ended))["cut"] == ["p2.task", ""]

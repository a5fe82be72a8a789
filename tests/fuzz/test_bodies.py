"""Whatever a create says: it is answered once, by a response or a refusal in the API's shape, and never by a fault.

Creates with wrong types anywhere, twice the same member, numbers that are too long, texts that are no Unicode, no
JSON at all; over HTTP, whole and as streams, and on a WebSocket. What the gateway passes on must not cost the socket
upstream, which others use, too.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.wire.codec import from_json
from tests.emulator.client import TERMINAL
from tests.fuzz.answers import answers, frames
from tests.fuzz.json_texts import creates, members
from tests.fuzz.requests import AUTHORITY, UPGRADE, plain
from tests.fuzz.running import KEY, said, tried
from tests.fuzz.sent_frames import frame
from tests.fuzz.spoiling import spoilt
from tests.gateway.stage import Stage
from tests.support.tier import fuzzed

pytestmark = pytest.mark.long
STATUSES = {200, 400, 404, 413, 422}
bodies = st.one_of(creates(), creates(), creates().flatmap(lambda text: spoilt(text, at_most=2)))


def not_fooled(stage: Stage) -> None:
    """No socket upstream was lost for what somebody said."""
    for scheduler in stage.gateway.upstreams.sources.values():
        assert scheduler.pool.stats().lost == 0


@given(bodies)
@fuzzed(200)
def test_a_create_over_http_is_answered(body: bytes) -> None:
    async def scenario(stage: Stage) -> bytes:
        request = plain(b"POST /v1/responses", AUTHORITY + b"connection: close\r\n", body or b" ")
        heard = await said(stage.gateway.handle, [request])
        not_fooled(stage)
        return heard

    (answer,), _ = answers(tried(scenario))
    assert answer.status in STATUSES, answer
    if answer.status != 200:
        check_error(from_json(answer.content)["error"])
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.content.endswith(b"data: [DONE]\n\n")
        last = answer.content.split(b"\n\n")[-3].partition(b"data: ")[2]
        assert from_json(last)["type"] in TERMINAL, last
    else:
        assert from_json(answer.content)["object"] == "response"


@given(st.lists(bodies, min_size=1, max_size=3))
@fuzzed(200)
def test_a_create_on_a_socket_is_answered(texts: list[bytes]) -> None:
    shake = plain(b"GET /v1/responses", AUTHORITY + UPGRADE)
    messages = [frame(0x81, b'{"type":"response.create",' + text[1:]) for text in texts]

    async def scenario(stage: Stage) -> bytes:
        heard = await said(stage.gateway.handle, [shake, *messages])
        not_fooled(stage)
        return heard

    (answer,), rest = answers(tried(scenario))
    assert answer.status == 101
    said_frames = frames(rest)
    events = [from_json(one.payload) for one in said_frames if one.opcode == 1]
    closed = [int.from_bytes(one.payload[:2], "big") for one in said_frames if one.opcode == 8]
    ends = [event for event in events if event["type"] in TERMINAL]
    if closed and closed[0] in (1007, 1009):  # no Unicode, or too long: which ends the connection
        return
    assert len(ends) == len(texts), (ends, texts)
    for event in ends:
        if event["type"] == "error":
            assert event["status"] in STATUSES, event
            check_error(event["error"])


def check_error(error: dict[str, Any]) -> None:
    assert isinstance(error["message"], str), error
    assert error["message"], error
    assert error["type"] in ("invalid_request_error", "not_found_error"), error


@given(bodies)
@fuzzed(100)
def test_a_create_in_compressed_or_passed_on_ways_is_answered(body: bytes) -> None:
    passed = plain(b"POST /v1/responses/compact", AUTHORITY + b"connection: close\r\n", body or b" ")

    async def scenario(stage: Stage) -> bytes:
        return await said(stage.gateway.handle, [passed])

    (answer,), _ = answers(tried(scenario))
    assert answer.status < 500, answer


def test_what_is_made_is_what_was_meant() -> None:
    """The strategies make objects: a mistake in them would test nothing."""
    assert members([("a", b"1"), ("a", b"2")]) == b'{"a":1,"a":2}'
    assert KEY.encode() in AUTHORITY

"""Whatever comes on a WebSocket: what is right is answered, what is wrong ends the connection by the rules.

A handshake, with or without compression, then frames that are right, wrong, spoilt or noise, cut into any pieces.
What the server says is checked frame by frame.
"""

from __future__ import annotations

import pytest
from hypothesis import given

from pool.wire.codec import from_json
from tests.emulator.client import TERMINAL
from tests.fuzz.answers import answers, frames, messages
from tests.fuzz.running import said, tried
from tests.fuzz.sent_frames import MALFORMED, Sent, sessions
from tests.gateway.stage import Stage
from tests.support.tier import fuzzed

pytestmark = pytest.mark.long


@given(sessions())
@fuzzed(400)
def test_what_is_right_is_answered_and_what_is_wrong_ends_it(
    session: tuple[bytes, list[Sent], list[bytes], bool],
) -> None:
    offer, steps, sent, hangs_up = session

    async def scenario(stage: Stage) -> bytes:
        return await said(stage.gateway.handle, sent, hangs_up=hangs_up)

    (answer, *more), rest = answers(tried(scenario))
    if answer.status != 101:  # what follows is no HTTP either
        assert offer in MALFORMED, answer
        assert {one.status for one in (answer, *more)} <= {400, 431}, (answer, more)
        return
    heard = frames(rest, deflate="sec-websocket-extensions" in answer.headers)
    events = [from_json(text) for text in messages(heard)]
    assert all(isinstance(event["type"], str) for event in events)
    ends = [event for event in events if event["type"] in TERMINAL]
    for event in ends:
        assert event["type"] != "error" or event["status"] < 500, event
    known = [one.creates for one in steps]
    if None not in known and not hangs_up:  # who hangs up has left, and is owed nothing
        assert len(ends) == sum(count or 0 for count in known)
        assert all(event["type"] == "response.completed" for event in ends)

"""The emulator is a server, too: whatever comes over HTTP or on a WebSocket, it does not crash, and it speaks right.

Its clients hang up when they have said everything: it has more patience with the silent than a test.
"""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.fuzz.answers import answers, frames, messages
from tests.fuzz.requests import Request, conversations
from tests.fuzz.running import said, tried
from tests.fuzz.sent_frames import Sent, sessions
from tests.gateway.stage import Stage
from tests.support.tier import fuzzed

pytestmark = pytest.mark.long


@given(conversations())
@fuzzed(150)
def test_over_http(talk: tuple[list[Request], list[bytes], bool]) -> None:
    asked, sent, _ = talk

    async def scenario(stage: Stage) -> bytes:
        return await said(stage.emulator.handle, sent, hangs_up=True)

    known = [one.method for one in asked]
    right = next((at for at, one in enumerate(asked) if one.status is None), len(asked))
    found, upgraded = answers(tried(scenario), known[:right])
    frames(upgraded)
    assert all(answer.status < 500 or answer.status in (501, 505) for answer in found), found


@given(sessions())
@fuzzed(150)
def test_on_a_socket(session: tuple[bytes, list[Sent], list[bytes], bool]) -> None:
    _, _, sent, _ = session

    async def scenario(stage: Stage) -> bytes:
        return await said(stage.emulator.handle, sent, hangs_up=True)

    found, rest = answers(tried(scenario))
    assert all(answer.status in (101, 400, 404, 431) for answer in found), found
    if found and found[0].status == 101:
        messages(frames(rest, deflate="sec-websocket-extensions" in found[0].headers))

"""Whatever comes over HTTP: each request that is whole and right is answered once, and nothing else harms anybody.

Requests in any order on a connection, with some of them spoilt, cut into any pieces. Nothing crashes, nothing is
answered with 500, what is answered is HTTP, and the next client is served.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given

from tests.fuzz.answers import answers, frames
from tests.fuzz.requests import Request, conversations, plain
from tests.fuzz.running import said, tried
from tests.gateway.stage import Stage
from tests.support.tier import fuzzed

pytestmark = pytest.mark.long
STATUSES = {101, 200, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 422, 426, 429, 431, 501, 505}
HEAD = Request(plain(b"HEAD /healthz"), 200)
NOISE = Request(b"\x00\r\n\r\n")


@given(conversations())
@example(([HEAD, NOISE], [HEAD.data, NOISE.data], False))  # the refusal had lost its content
@fuzzed(300)
def test_what_is_right_is_answered_and_nothing_harms(talk: tuple[list[Request], list[bytes], bool]) -> None:
    asked, sent, hangs_up = talk

    async def scenario(stage: Stage) -> bytes:
        return await said(stage.gateway.handle, sent, hangs_up=hangs_up)

    heard = tried(scenario)
    known = [one.status for one in asked]
    right = known.index(None) if None in known else len(known)
    found, upgraded = answers(heard, [one.method for one in asked[:right]])
    frames(upgraded)
    statuses = [answer.status for answer in found]
    assert set(statuses) <= STATUSES, statuses
    if not hangs_up:  # who hangs up has left, and is owed nothing
        assert statuses[:right] == known[:right]
        if right == len(known):
            assert len(statuses) == right

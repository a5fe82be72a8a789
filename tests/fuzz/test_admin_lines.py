"""Whatever is said on the admin socket: each line is answered once, and nothing ends the gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.auth import Secret
from pool.wire.codec import from_json, to_json
from scheduler.gateway.admin import LONGEST, VERBS, Admin
from scheduler.gateway.server import RunningGateway
from scheduler.gateway.tables import SHOWN
from tests.fuzz.json_texts import anything, members
from tests.fuzz.running import said, tried
from tests.fuzz.spoiling import pieces, spoilt
from tests.gateway.stage import Stage
from tests.support.tier import fuzzed

pytestmark = pytest.mark.long
TOKEN = "wl-admin-token-0123456789"
verbs = st.one_of(st.sampled_from([to_json(verb) for verb in (*VERBS, "takeover", "Show", "")]), anything)
names = st.one_of(st.sampled_from([to_json(name) for name in (*SHOWN, "fuzzed", "open", "")]), anything)
tokens = st.one_of(st.just(to_json(TOKEN)), st.just(to_json(TOKEN)), anything)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return a request, right or wrong."""
    given = [("verb", draw(verbs))]
    if draw(st.booleans()):
        given.append(("name", draw(names)))
    given.append(("token", draw(tokens)))
    if not draw(st.integers(0, 5)):
        given.append((draw(st.sampled_from(("verb", "name", "token", "x"))), draw(anything)))
    return members(draw(st.permutations(given)))


lines = st.one_of(requests(), requests(), requests().flatmap(spoilt), anything, st.binary(max_size=50)).map(
    lambda line: line.replace(b"\n", b"")
)


@given(st.lists(lines, min_size=1, max_size=4), st.booleans(), st.booleans(), st.data())
@fuzzed(400)
def test_each_line_is_answered_and_none_ends_it(
    asked: list[bytes], hangs_up: bool, with_token: bool, data: st.DataObject
) -> None:
    sent = data.draw(pieces(b"".join(line + b"\n" for line in asked)))
    stops: list[None] = []

    async def scenario(stage: Stage) -> bytes:
        admin = Admin(
            RunningGateway(stage.gateway, ()),
            settings=[("listen", "127.0.0.1:8787", "default")],
            token=Secret(TOKEN) if with_token else None,
            stop=lambda: stops.append(None),
        )
        heard = await said(
            admin.handle, [*sent, to_json({"verb": "resume", "token": TOKEN}) + b"\n"], hangs_up=True
        )
        stage.gateway.upstreams.paused = False
        return heard

    heard = tried(scenario)
    assert TOKEN.encode() not in heard
    *answered, rest = heard.split(b"\n")
    assert rest == b""
    if all(len(line) < LONGEST for line in asked):
        assert len(answered) == len(asked) + 1, (asked, answered)
    for line in answered:
        answer = from_json(line)
        assert answer.keys() in ({"error"}, {"said"}, {"columns", "rows"}), answer
        assert len(line) < LONGEST or "rows" in answer

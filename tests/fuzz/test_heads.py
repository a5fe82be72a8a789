"""Whatever comes over HTTP: each request that is whole and right is answered once, and nothing else harms anybody.

Requests in any order on a connection, with some of them spoilt, cut into any pieces. Nothing crashes, nothing is
answered with 500, what is answered is HTTP, and the next client is served.
"""

from __future__ import annotations

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.answers import answers, frames
from tests.fuzz.running import KEY, said, tried
from tests.fuzz.spoiling import pieces, spoilt
from tests.gateway.stage import Stage
from tests.support.tier import fuzzed

pytestmark = pytest.mark.long
CREATE = b'{"model":"m","input":"hello","store":false}'
AUTHORITY = b"authorization: Bearer " + KEY.encode() + b"\r\n"
UPGRADE = (
    b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
STATUSES = {101, 200, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 422, 426, 429, 431, 501, 505}


@frozen
class Request:
    """A request and the status of its answer; None where anything sensible will do."""

    data: bytes
    status: int | None = None

    @property
    def method(self) -> str:
        """Its method."""
        return self.data.partition(b" ")[0].decode("latin-1")


def plain(first: bytes, fields: bytes = b"", body: bytes = b"") -> bytes:
    length = b"content-length: %d\r\n" % len(body) if body else b""
    return first + b" HTTP/1.1\r\nhost: localhost\r\n" + fields + length + b"\r\n" + body


GOOD = (
    Request(plain(b"GET /healthz"), 200),
    Request(plain(b"HEAD /healthz"), 200),
    Request(plain(b"GET /readyz?x=1"), 200),
    Request(plain(b"POST /healthz", b"", b"hello"), 200),
    Request(plain(b"GET /v1/models"), 401),
    Request(plain(b"GET /v1/models", AUTHORITY), 200),
    Request(plain(b"GET /v1/models", b"authorization: Bearer wl-wrong\r\n"), 401),
    Request(plain(b"GET /v1/responses/resp_0", AUTHORITY), 404),
    Request(plain(b"GET /nowhere", AUTHORITY), 404),
    Request(plain(b"POST /v1/responses", AUTHORITY, CREATE), 200),
    Request(plain(b"POST /v1/responses", AUTHORITY, b'{"model":"m","input":"hello","stream":true}'), 200),
    Request(plain(b"POST /v1/responses", AUTHORITY, b"{"), 400),
    Request(plain(b"POST /v1/responses", b"", CREATE), 401),
    Request(
        plain(b"POST /v1/responses", AUTHORITY + b"transfer-encoding: chunked\r\n")
        + b"5;x=y\r\n"
        + CREATE[:5]
        + b"\r\n%x\r\n" % len(CREATE[5:])
        + CREATE[5:]
        + b"\r\n0\r\nx: y\r\n\r\n",
        200,
    ),
    Request(plain(b"POST /v1/responses", AUTHORITY + b"expect: 100-continue\r\n", CREATE), 200),
)
ODD = (
    *(
        plain(method + b" /v1/responses", AUTHORITY)
        for method in (b"get", b"PATCH", b"OPTIONS", b"CONNECT", b"X" * 300)
    ),
    *(
        plain(b"GET " + target, AUTHORITY)
        for target in (
            *(
                b"*",
                b"http://localhost/v1/models",
                b"//v1/models",
                b"/v1//responses",
                b"/v1/responses/",
                b"/v1/%ff",
            ),
            *(
                b"/v1/responses/%2e%2e/x",
                b"/v1/responses/" + b"9" * 3000,
                b"/v1/responses/resp_%00",
                b"/v1/responses?",
            ),
        )
    ),
    plain(b"GET /v1/responses", AUTHORITY + UPGRADE),
    plain(b"GET /v1/responses", AUTHORITY + UPGRADE + b"sec-websocket-extensions: permessage-deflate\r\n"),
    plain(b"POST /v1/responses", AUTHORITY + b"content-encoding: gzip\r\n", b"\x1f\x8b"),
    plain(b"POST /v1/files", AUTHORITY, b"hello"),
    plain(b"POST /v1/files", AUTHORITY + b"transfer-encoding: chunked\r\n") + b"2\r\nab\r\n",
    plain(b"DELETE /v1/responses/resp_0", AUTHORITY),
    plain(b"GET /v1/models", AUTHORITY + b"api-key: x\r\nauthorization: Bearer y\r\n"),
    plain(b"GET /v1/models", AUTHORITY).replace(b"HTTP/1.1", b"HTTP/1.0"),
)
requests = st.one_of(
    st.sampled_from(GOOD),
    st.sampled_from(ODD).map(Request),
    st.sampled_from([*(one.data for one in GOOD), *ODD]).flatmap(spoilt).map(Request),
    st.sampled_from([*(one.data for one in GOOD), *ODD])
    .flatmap(lambda whole: spoilt(whole, at_most=1))
    .map(Request),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Request], list[bytes], bool]:
    asked = draw(st.lists(requests, min_size=1, max_size=4))
    data = b"".join(one.data for one in asked)
    return asked, list(draw(pieces(data))), draw(st.booleans())


@given(conversations())
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

"""Whatever is asked of the port of metrics, dashboard and health: it is answered, and no page fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pool.auth import Secret
from pool.web import Head, HttpConnection
from scheduler.dashboard.access import Access
from scheduler.dashboard.server import Dashboard
from scheduler.gateway.figures import figures_of
from scheduler.telemetry.address import Address
from scheduler.telemetry.listener import Listener, health
from scheduler.telemetry.prometheus import Metrics
from tests.fuzz.answers import answers
from tests.fuzz.requests import AUTHORITY, CREATE, plain
from tests.fuzz.running import said, tried
from tests.fuzz.spoiling import pieces, spoilt
from tests.gateway.stage import Stage
from tests.support.tier import fuzzed

pytestmark = pytest.mark.long
TURN = plain(b"POST /v1/responses", AUTHORITY + b"connection: close\r\n", CREATE)
TOKEN = "dashboard-token-0123456789"
STATUSES = {200, 303, 400, 401, 403, 404, 405, 408, 411, 413, 414, 421, 431, 501, 503, 505}
PATHS = (
    "/",
    "/metrics",
    "/healthz",
    "/state.json",
    "/connection.json",
    "/events",
    "/dashboard.js",
    "/nothing",
    "*",
    "//",
)
VALUES = (
    *(
        "",
        "0",
        "1",
        "-1",
        "9" * 30,
        "9" * 5000,
        "1e5",
        "%00",
        "%D9%A1",
        "%F0%9F%98%80",
        "%ff%fe",
        "%",
        "%zz",
        "fuzzed",
    ),
    *("&&&", ";", "+", "a" * 3000, TOKEN, "x%26id=1", "%E2%80%A8", "²", "①"),
)
HEADERS = (
    *(
        b"host: localhost",
        b"host: evil.example",
        b"host: [::1",
        b"host: 127.0.0.1:99999999",
        b"host:",
        b"x: y",
    ),
    *(b"accept: application/openmetrics-text; version=1.0.0", b"accept: */*;q=x", b"accept: " + b"a," * 500),
    *(b"accept-encoding: gzip", b"origin: null", b"origin: http://localhost", b"sec-fetch-site: cross-site"),
    *(b"sec-fetch-site: none", b"sec-fetch-mode: navigate", b"authorization: Bearer " + TOKEN.encode()),
    *(b"authorization: bearer \xe9\xff", b"authorization: Bearer", b"cookie: warmline-1=" + TOKEN.encode()),
    *(
        b"cookie: warmline-1=%ff; ;;=",
        b"cookie: =; warmline-1",
        b"content-length: 3",
        b"transfer-encoding: chunked",
    ),
    *(b"connection: close", b"expect: 100-continue", b"upgrade: websocket"),
)


@st.composite
def asked(draw: st.DrawFn) -> bytes:
    """Return a request, right or wrong."""
    method = draw(st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "DELETE", "get"]))
    target = draw(st.sampled_from(PATHS))
    query = draw(
        st.lists(
            st.tuples(st.sampled_from(("id", "source", "token", "name[]", "")), st.sampled_from(VALUES)),
            max_size=3,
        )
    )
    if query:
        target += "?" + "&".join(f"{name}={value}" for name, value in query)
    fields = [b"host: localhost"] if draw(st.integers(0, 4)) else []
    fields += draw(st.lists(st.sampled_from(HEADERS), max_size=3))
    head = (
        f"{method} {target} HTTP/1.1\r\n".encode() + b"".join(field + b"\r\n" for field in fields) + b"\r\n"
    )
    return head if draw(st.integers(0, 3)) else draw(spoilt(head, at_most=2))


def brief(
    respond: Callable[[HttpConnection, Head], Awaitable[None]],
) -> Callable[[HttpConnection, Head], Awaitable[bool]]:
    """Let the dashboard answer, but let nobody watch for long."""

    async def page(http: HttpConnection, head: Head) -> bool:
        with trio.CancelScope() as scope:
            if head.path == "/events":
                scope.deadline = trio.current_time() + 2.5
            await respond(http, head)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError
        return True

    return page


@given(st.lists(asked(), min_size=1, max_size=3), st.booleans(), st.booleans(), st.data())
@fuzzed(300)
def test_it_is_answered_and_no_page_fails(
    requests: list[bytes], hangs_up: bool, with_token: bool, data: st.DataObject
) -> None:
    sent = data.draw(pieces(b"".join(requests)))

    async def scenario(stage: Stage) -> bytes:
        await said(stage.gateway.handle, [TURN])  # so that there is something to show
        assert stage.gateway.upstreams.sources
        address = Address("0.0.0.0" if with_token else "127.0.0.1", 1)
        token = Secret(TOKEN) if with_token else None
        dashboard = Dashboard(lambda: stage.gateway.upstreams.sources, Access(token=token, port=1))
        metrics = Metrics(lambda: stage.gateway.upstreams.sources, lambda: figures_of(stage.gateway))
        async with dashboard.running():
            pages = (health, metrics.page, brief(dashboard.respond))
            server = Listener(address, pages).server
            heard = await said(server.handle, sent, hangs_up=hangs_up)
            assert server.crashes == 0
            return heard

    heard = tried(scenario)
    if b"text/event-stream" in heard:  # it was cut off in the middle
        return
    found, _ = answers(heard)
    assert {answer.status for answer in found} <= STATUSES, found
    cut = any(b"/events" in request for request in requests)  # by `brief`, maybe before its body was missed
    if not hangs_up and not cut and all(request.endswith(b"\r\n\r\n") for request in requests):
        assert found
    for answer in found:
        if answer.status != 303:
            assert TOKEN.encode() not in answer.content

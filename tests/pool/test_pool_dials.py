"""Opening connections: what a refusal, a silence or nonsense means for those who wait."""

from __future__ import annotations

import itertools
import logging
import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from pool import DialFailed, Endpoint, Pool, open_pool
from pool.auth import KeyFromCallable
from pool.dial import Dialer
from tests.support.pool_server import FakeServer, assert_quiet, pool_of, quiet

KEY = "sk-hunter2"


async def refused(pool: Pool) -> DialFailed:
    """Ask for a lane in vain."""
    with pytest.raises(DialFailed) as caught:
        await pool.acquire()
    return caught.value


async def test_a_wrong_key_is_hopeless_and_said_at_once(
    clock: MockClock, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuse = [(401, [], b'{"error": "Incorrect API key"}')]
    endpoint = Endpoint(name="fake", url="ws://fake.test/v1/responses?t=secret").with_(
        auth=KeyFromCallable(lambda: KEY)
    )
    async with pool_of(server, endpoint=endpoint) as pool:
        error = await refused(pool)
        assert (error.status, error.hopeless) == (401, True)
        assert str(error) == (
            "ws://fake.test/v1/responses refused the upgrade with HTTP 401; check the key "
            '({"error": "Incorrect API key"})'
        )
        assert len(server.dials) == 1
        assert pool.stats().dials_failed == 1
        async with pool.lease():
            assert server.sessions[0].head["authorization"] == f"Bearer {KEY}"
    assert "dial of c1 failed" in caplog.text
    assert KEY not in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("status", "hopeless", "remedy"),
    [
        (400, True, ""),
        (403, False, "; the key may lack access, or too many connections were dialled too fast"),
        (404, True, "; check the URL"),
        (426, True, "; this server has no WebSocket mode here"),
        (429, False, "; too many connections"),
        (503, False, ""),
    ],
)
async def test_a_refusal_says_what_would_help(
    clock: MockClock, server: FakeServer, status: int, hopeless: bool, remedy: str
) -> None:
    server.refuse = [(status, [], b"")]
    async with pool_of(server, dial_attempts=1) as pool:
        error = await refused(pool)
        assert (error.status, error.hopeless) == (status, hopeless)
        assert str(error).endswith(f"refused the upgrade with HTTP {status}{remedy}")


@pytest.mark.parametrize("status", [403, 429])
async def test_too_many_slows_all_dials_down(clock: MockClock, server: FakeServer, status: int) -> None:
    server.refuse = [(status, [], b"")] * 3
    async with pool_of(server, dial_attempts=10, dial_rate=8) as pool:
        async with pool.lease():
            assert pool.stats().dial_rate == pytest.approx(1.0 + 0.8)
        gaps = [after - before for before, after in itertools.pairwise(server.dials)]
        assert gaps == sorted(gaps)
        assert len(gaps) == 3


@pytest.mark.parametrize(("header", "wait"), [(b"7", 7.0), (b"Wed, 21 Oct 2015 07:28:00 GMT", 0.3)])
async def test_a_server_that_says_when_is_believed(
    clock: MockClock, server: FakeServer, header: bytes, wait: float
) -> None:
    server.refuse = [(429, [(b"Retry-After", header)], b"")]
    async with pool_of(server) as pool:
        async with pool.lease():
            pass
        assert server.dials[1] - server.dials[0] == pytest.approx(wait, abs=0.2)


async def test_a_peer_that_says_nothing(clock: MockClock, server: FakeServer) -> None:
    server.mute = True
    async with pool_of(server, dial_timeout=15, dial_attempts=1) as pool:
        error = await refused(pool)
        assert trio.current_time() == pytest.approx(15, abs=0.01)
        assert str(error) == "cannot open ws://fake.test/v1/responses: no upgrade within 15 s"
        assert (error.status, error.hopeless) == (None, False)


@pytest.mark.parametrize(
    "greeting",
    [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\x16\x03\x01\x00\x00"],
    ids=["hangs up", "speaks something else", "answers without an upgrade", "speaks TLS"],
)
async def test_a_peer_that_is_no_websocket_server(
    clock: MockClock, server: FakeServer, greeting: bytes
) -> None:
    server.greeting = greeting
    async with pool_of(server, dial_attempts=1, dial_timeout=15) as pool:
        error = await refused(pool)
        assert trio.current_time() < 1, "known at once, without waiting for the timeout"
        assert str(error).startswith("ws://fake.test" if error.status else "cannot open ws://fake.test")
    assert_quiet(pool)


async def test_a_transport_that_does_not_come_up_in_time(clock: MockClock) -> None:
    async def never() -> trio.abc.Stream:
        await trio.sleep(math.inf)
        return trio.testing.memory_stream_pair()[0]

    endpoint, settings = Endpoint(name="fake", url="ws://fake.test/"), quiet(dial_timeout=3, dial_attempts=1)
    async with open_pool(endpoint, settings, dial=Dialer(endpoint, settings, never)) as pool:
        assert str(await refused(pool)) == "cannot reach ws://fake.test/: no answer within 3 s"


async def test_a_key_that_never_comes_counts_against_the_same_time(
    clock: MockClock, server: FakeServer
) -> None:
    async def never() -> str:
        await trio.sleep(math.inf)
        return KEY

    endpoint = Endpoint(name="fake", url="ws://fake.test/", auth=KeyFromCallable(never))
    async with pool_of(server, endpoint=endpoint, dial_timeout=3, dial_attempts=1) as pool:
        assert "no answer within 3 s" in str(await refused(pool))
        assert server.dials == []


async def test_the_users_own_headers_go_before_ours(clock: MockClock, server: FakeServer) -> None:
    headers = {"authorization": "Basic abc", "USER-AGENT": "mine", "X-Title": "käse"}
    endpoint = Endpoint(
        name="fake", url="ws://fake.test/", auth=KeyFromCallable(lambda: KEY), headers=headers
    )
    async with pool_of(server, endpoint=endpoint) as pool, pool.lease():
        head = server.sessions[0].head
        assert (head["authorization"], head["user-agent"], head["x-title"]) == ("Basic abc", "mine", "käse")
        assert head[":path"] == "/"


async def test_a_good_connection_keeps_serving_while_dials_fail(clock: MockClock, server: FakeServer) -> None:
    async with pool_of(server, max_connections=4) as pool:
        lease = await pool.acquire()
        server.refuse = [(503, [], b"")] * 1000
        with trio.move_on_after(5):
            await pool.acquire()
        lease.release()
        async with pool.lease():
            assert pool.stats().opened == 1


async def test_a_pool_comes_back_after_an_outage(clock: MockClock, server: FakeServer) -> None:
    server.refuse = [(503, [], b"")] * 6
    async with pool_of(server, min_idle=1) as pool:
        await server.opened(1)
        assert 8 < trio.current_time() < 25
        await wait_all_tasks_blocked()
        assert pool.stats().idle_lanes == 1


async def test_dials_are_concurrent_within_a_bound(clock: MockClock, server: FakeServer) -> None:
    server.delay = 1.0
    async with pool_of(server, max_connections=8, min_idle=8, dial_concurrency=3):
        await server.opened(8)
        starts = [round(start) for start in server.dials]
        assert starts == [0, 0, 0, 1, 1, 1, 2, 2]


async def test_the_log_says_which_dial_failed_and_why(
    clock: MockClock, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.refuse = [(503, [], b"busy")]
    with caplog.at_level(logging.DEBUG, "warmline.pool"):
        async with pool_of(server) as pool, pool.lease():
            pass
    assert (
        "dial of c1 failed: ws://fake.test/v1/responses refused the upgrade with HTTP 503 (busy)"
        in caplog.text
    )
    assert "c2 opened" in caplog.text

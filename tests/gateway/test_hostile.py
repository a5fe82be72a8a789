"""Requests that no honest client makes: heads with two meanings, pages of other sites, what is somebody else's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from pool.errors import SettingsError
from pool.http_limits import HttpLimits
from pool.web import HttpConnection
from pool.wire.refusal import Refused
from scheduler.gateway.keys import KeyRing
from scheduler.gateway.listening import default_admin_path
from scheduler.gateway.mint import mint
from scheduler.gateway.settings import GatewaySettings
from tests.emulator.client import connected, knobs
from tests.gateway.stage import staged
from tests.gateway.web import web_client

ASKED: dict[str, Any] = {"input": "hello", "metadata": knobs("calls=0")}
HEAD = b"POST /v1/files HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer sk-client\r\n"
SMUGGLED = b"0\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer sk-client\r\n\r\n"
UPGRADE = (
    b"GET /v1/responses HTTP/1.1\nhost: gateway\nauthorization: Bearer k\n"
    b"connection: upgrade\nupgrade: websocket\n\n"
)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + SMUGGLED, 400),
        (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
        (HEAD + b"transfer-encoding: xchunked\r\n\r\n" + SMUGGLED, 501),
        (HEAD + b"transfer-encoding : chunked\r\n\r\n" + SMUGGLED, 400),
        (HEAD + b"x: a\ncontent-length: 5\r\n\r\nhello", 400),
        (UPGRADE, 400),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (HEAD + b"x: " + b"a" * 3000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
async def test_what_could_be_read_in_two_ways_is_not_read(
    autojump_clock: trio.abc.Clock, sent: bytes, status: int
) -> None:
    async with staged(settings=GatewaySettings(max_head=2048)) as stage, web_client(stage) as client:
        await client.stream.send_all(sent)
        answer = b""
        with trio.fail_after(60):
            while data := await client.stream.receive_some():
                answer += data
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert stage.http_side.dials == []
        assert stage.gateway.crashes == 0


@pytest.mark.parametrize(
    "line", [b"authorization: Bearer sk-secret\x00", b"authorization: Bearer sk-\x7f\nsecret", b"sk-secret"]
)
async def test_what_is_wrong_is_said_without_the_secret_in_it(
    autojump_clock: trio.abc.Clock, line: bytes
) -> None:
    async with staged() as stage, web_client(stage) as client:
        await client.stream.send_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + line + b"\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 400
        assert "The request is no HTTP: illegal header line." in answer.json["error"]["message"]
        assert b"secret" not in answer.content


async def test_a_body_that_is_too_long_is_refused_before_it_comes(autojump_clock: trio.abc.Clock) -> None:
    async with staged(settings=GatewaySettings(max_body=2000)) as stage, web_client(stage) as client:
        head = (
            b"POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\ncontent-length: 2001\r\n"
        )
        await client.stream.send_all(head + b"expect: 100-continue\r\n\r\n")
        began = trio.current_time()
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert trio.current_time() == began


async def test_a_body_that_nobody_wants_is_not_asked_for(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, web_client(stage, headers={}) as client:
        head = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n"
        await client.stream.send_all(head)
        assert (await client.next()).status_code == 401  # and no 100 before it


@pytest.mark.parametrize("path", [b"/v1/responses", b"/v1/files"], ids=["a turn", "passed on"])
@pytest.mark.parametrize("before", [b"", b"2\r\n{}\r\n"], ids=["at once", "later"])
async def test_a_body_that_is_no_http_is_answered(
    autojump_clock: trio.abc.Clock, path: bytes, before: bytes
) -> None:
    async with staged() as stage, web_client(stage) as client:
        head = b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n" % path
        await client.stream.send_all(head + b"transfer-encoding: chunked\r\n\r\n")
        await client.stream.send_all(before + b"sk-secret\r\n")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert answer.json["error"]["type"] == "invalid_request_error"
        assert "The request body is no HTTP" in answer.json["error"]["message"]
        assert b"secret" not in answer.content
    stage.assert_quiet()


async def test_who_still_sends_sees_the_refusal() -> None:
    async with staged(settings=GatewaySettings(max_head=2048)) as stage, trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, stage.gateway.handle, listeners)
        with trio.fail_after(20):
            stream = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
            await stream.send_all(b"GET / HTTP/1.1\r\nx: " + b"a" * 20_000_000)
            answer = b""
            while data := await stream.receive_some():
                answer += data
            await stream.aclose()
        assert answer.startswith(b"HTTP/1.1 431 ")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "target",
    ["/v1/../admin", "/v1/files/%2e%2E/x", "/v1/x%2f..%2f..%2fy", "/v1/..\\x", "http://elsewhere/v1/x"],
)
async def test_nothing_beside_the_api_is_reached(autojump_clock: trio.abc.Clock, target: str) -> None:
    async with staged() as stage, web_client(stage) as client:
        assert (await client.ask("GET", target)).status == 404
        assert stage.http_side.dials == []


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"host": "evil.example:8787"}, "Host"),
        ({"host": "127.0.0.1.evil.example"}, "Host"),
        ({"host": "[::1"}, "Host"),
        ({"host": ""}, "Host"),
        ({"host": "127.0.0.1:8787", "origin": "https://evil.example"}, "Origin"),
        ({"host": "127.0.0.1:8787", "origin": "null"}, "Origin"),
        ({"host": "127.0.0.1:8787", "origin": "http://localhost.evil.example"}, "Origin"),
        ({"host": "127.0.0.1:8787", "sec-fetch-site": "cross-site"}, "Sec-Fetch-Site"),
    ],
)
def test_a_key_is_lent_to_no_page_of_another_site(headers: dict[str, str], named: str) -> None:
    with pytest.raises(Refused, match=named) as refused:
        KeyRing("open").identify(headers)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8787"},
        {"host": "localhost"},
        {"host": "[::1]:8787"},
        {"host": "warmline.localhost:8787"},
        {"host": "localhost:8787", "origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"host": "127.0.0.1:8787", "origin": "http://localhost:3000", "sec-fetch-site": "cross-site"},
        {},
    ],
)
def test_programs_and_pages_of_this_machine_come_in(headers: dict[str, str]) -> None:
    assert KeyRing("open").identify(headers).name == "everybody"


async def test_a_page_opens_no_socket_on_somebody_elses_key(autojump_clock: trio.abc.Clock) -> None:
    async with staged(policy="open") as stage, web_client(stage, headers={}) as client:
        fields: dict[str, Any] = {"host": "127.0.0.1", "connection": "Upgrade", "upgrade": "websocket"}
        fields |= {"sec-websocket-version": "13", "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA=="}
        answer = await client.ask("GET", "/v1/responses", origin="https://evil.example", **fields)
        assert (answer.status, answer.json["error"]["code"]) == (403, "not_local")
        assert stage.gateway.upstreams.all == []


async def test_what_the_gateway_knows_to_be_anothers_is_not_found(autojump_clock: trio.abc.Clock) -> None:
    (one, first), (other, second) = mint("one"), mint("other")
    headers = {"authorization": f"Bearer {other}"}
    async with (
        staged(policy="virtual", keys=[first, second]) as stage,
        web_client(stage, headers={"authorization": f"Bearer {one}"}) as client,
        web_client(stage, headers=headers) as neighbour,
    ):
        # It is stored upstream under the key that both use, so that the server would give it to either.
        stored = (await client.create(**ASKED)).json["id"]
        assert (await client.ask("GET", f"/v1/responses/{stored}")).status == 200
        for target in (stored, stored.replace("_", "%5F"), f"{stored}/cancel", f"{stored}?include=x"):
            assert (await neighbour.ask("GET", f"/v1/responses/{target}")).status == 404
        refused = await neighbour.create(**ASKED, previous_response_id=stored)
        assert refused.json["error"]["code"] == "previous_response_not_found"
        async with connected(stage.gateway, headers=headers) as socket:
            await socket.send(**ASKED, previous_response_id=stored)
            assert (await socket.rest())[-1]["error"]["code"] == "previous_response_not_found"


async def test_an_answer_that_is_not_taken_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    near, far = trio.testing.lockstep_stream_pair()  # takes nothing that is not read
    http = HttpConnection(far, HttpLimits(send_timeout=5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await http.next_head()
    with pytest.raises(trio.BrokenResourceError, match="takes no data"):
        await http.answer(200, b"x" * 1000, {})
    assert trio.current_time() == 5


def test_the_admin_socket_lies_where_nobody_else_can_put_one(tmp_path: Path) -> None:
    folder, uid = tmp_path / f"warmline-{os.getuid()}", os.getuid()
    folder.mkdir(mode=0o700)
    assert default_admin_path(80, {}, uid, str(tmp_path)) == str(folder / "serve-80.sock")
    with pytest.raises(SettingsError, match="own"):
        default_admin_path(80, {}, uid + 1, str(folder.rename(tmp_path / f"warmline-{uid + 1}").parent))
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(SettingsError, match="own"):
        default_admin_path(80, {}, uid, str(tmp_path))
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="own"):
        default_admin_path(80, {}, uid, str(tmp_path))

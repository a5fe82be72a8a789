"""What is passed on over HTTP as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
import trio.testing
from attrs import define, field

from pool.errors import DialFailed
from pool.http import HttpClient
from pool.http_limits import HttpLimits
from pool.settings import Endpoint, PoolSettings
from pool.web import BodyBroken, BodyTimeout, HttpConnection
from pool.wire.refusal import Refused
from scheduler.gateway.front import ClientGone
from scheduler.gateway.passthrough import AnswerBroken, pass_through
from scheduler.gateway.routing import route_of


@define(eq=False)
class Exchange:
    """A client and a server with the gateway between them, each speaking HTTP by hand."""

    client: trio.abc.Stream
    servers: trio.MemoryReceiveChannel[trio.abc.Stream]
    http: HttpConnection
    outcome: list[BaseException | None] = field(factory=list)
    ended: trio.Event = field(factory=trio.Event)
    _ours: h11.Connection = field(factory=lambda: h11.Connection(h11.CLIENT))
    _theirs: h11.Connection = field(factory=lambda: h11.Connection(h11.SERVER))
    _server: trio.abc.Stream | None = None

    async def ask(self, *events: h11.Event) -> None:
        await self.client.send_all(b"".join(self._ours.send(event) or b"" for event in events))

    async def asked(self) -> Any:
        """Return the next event that the server sees."""
        if self._server is None:
            self._server = await self.servers.receive()
        return await _next(self._theirs, self._server)

    async def say(self, *events: h11.Event) -> None:
        assert self._server is not None
        await self._server.send_all(b"".join(self._theirs.send(event) or b"" for event in events))

    async def said(self) -> Any:
        """Return the next event that the client sees."""
        return await _next(self._ours, self.client)

    async def cut(self) -> None:
        assert self._server is not None
        await trio.aclose_forcefully(self._server)


async def _next(parser: h11.Connection, stream: trio.abc.Stream) -> Any:
    while (event := parser.next_event()) is h11.NEED_DATA:
        parser.receive_data(bytes(await stream.receive_some()))
    return event


@asynccontextmanager
async def passing(
    limits: HttpLimits | None = None, *, down: bool = False, pool: PoolSettings | None = None
) -> AsyncIterator[Exchange]:
    near, far = trio.testing.memory_stream_pair()
    give, servers = trio.open_memory_channel[trio.abc.Stream](4)

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if down:
            raise DialFailed("nobody answers")
        ours, theirs = trio.testing.memory_stream_pair()
        give.send_nowait(theirs)
        return ours

    endpoint = Endpoint.emulator("http://upstream/api/v1", key="sk-ours").with_(headers={"X-Team": "a"})
    client = HttpClient(endpoint, pool or PoolSettings(), 4, connect)
    exchange = Exchange(near, servers, HttpConnection(far, limits or HttpLimits(max_body=1 << 20)))

    async def pass_one() -> None:
        head = await exchange.http.next_head()
        assert head is not None
        try:
            await pass_through(exchange.http, head, route_of(head), client)
            exchange.outcome.append(None)
        except (Refused, AnswerBroken, BodyBroken, ClientGone) as error:
            exchange.outcome.append(error)
        exchange.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_one)
        yield exchange
        nursery.cancel_scope.cancel()
        await client.aclose()


def request(method: str, target: str, *fields: tuple[str, str]) -> h11.Request:
    return h11.Request(method=method, target=target, headers=[("Host", "gateway"), *fields])


async def test_a_request_goes_on_with_our_key_and_without_what_is_of_one_connection(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with passing() as exchange:
        fields = [
            ("Authorization", "Bearer wl-theirs"),
            ("Api-Key", "wl-theirs"),
            ("X-Team", "b"),
            ("Connection", "X-Hop, keep-alive"),
            ("X-Hop", "1"),
            ("Keep-Alive", "5"),
            ("Accept-Encoding", "gzip, br"),
            ("X-Twice", "1"),
            ("X-Twice", "2"),
        ]
        await exchange.ask(request("GET", "/v1/models/a%20b?limit=2&after=x", *fields), h11.EndOfMessage())
        seen = await exchange.asked()
        assert (seen.method, seen.target) == (b"GET", b"/api/v1/models/a%20b?limit=2&after=x")
        assert sorted(seen.headers) == [
            (b"accept-encoding", b"gzip, br"),
            (b"authorization", b"Bearer sk-ours"),
            (b"host", b"upstream"),
            (b"x-team", b"a"),
            (b"x-twice", b"1"),
            (b"x-twice", b"2"),
        ]
        assert isinstance(await exchange.asked(), h11.EndOfMessage)
        answer = [("Content-Type", "x/y"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Keep-Alive", "9")]
        await exchange.say(
            h11.Response(status_code=418, headers=[*answer, ("Content-Length", "4")]),
            h11.Data(data=b"tea!"),
            h11.EndOfMessage(),
        )
        told = await exchange.said()
        assert told.status_code == 418
        assert list(told.headers) == [
            (b"content-type", b"x/y"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"content-length", b"4"),
        ]
        assert bytes((await exchange.said()).data) == b"tea!"
        assert isinstance(await exchange.said(), h11.EndOfMessage)
        await trio.testing.wait_all_tasks_blocked()
        assert exchange.outcome == [None]
        assert exchange.http.again()


@pytest.mark.parametrize("length", [None, 6])
async def test_both_bodies_stream(autojump_clock: trio.abc.Clock, length: int | None) -> None:
    async with passing() as exchange:
        how = ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
        await exchange.ask(request("POST", "/v1/files", how), h11.Data(data=b"one"))
        head = await exchange.asked()
        assert dict(head.headers)[how[0].lower().encode()] == how[1].encode()
        assert bytes((await exchange.asked()).data) == b"one"  # before there is more
        await exchange.ask(h11.Data(data=b"two"), h11.EndOfMessage())
        assert bytes((await exchange.asked()).data) == b"two"
        assert isinstance(await exchange.asked(), h11.EndOfMessage)
        await exchange.say(h11.Response(status_code=200, headers=[]), h11.Data(data=b"event 1"))
        assert (await exchange.said()).status_code == 200
        assert bytes((await exchange.said()).data) == b"event 1"
        await exchange.say(h11.Data(data=b"event 2"), h11.EndOfMessage())
        assert bytes((await exchange.said()).data) == b"event 2"
        assert isinstance(await exchange.said(), h11.EndOfMessage)


async def test_a_slow_upload_takes_its_time(autojump_clock: trio.abc.Clock) -> None:
    patient = HttpLimits(head_timeout=700, body_timeout=4000, least_rate=0)
    async with passing(patient) as exchange:
        await exchange.ask(request("POST", "/v1/files", ("Content-Length", "5")))
        await exchange.asked()
        for _ in range(5):
            await trio.sleep(600)  # less than stall_timeout each, more than it in all
            await exchange.ask(h11.Data(data=b"x"))
            assert bytes((await exchange.asked()).data) == b"x"
        await exchange.ask(h11.EndOfMessage())
        assert isinstance(await exchange.asked(), h11.EndOfMessage)


@pytest.mark.parametrize("every", [3, 15, 1000], ids=["trickling", "too slow", "stopped"])
async def test_a_body_that_stalls_in_the_middle_ends(autojump_clock: trio.abc.Clock, every: float) -> None:
    async with passing() as exchange:
        await exchange.ask(request("POST", "/v1/files", ("Content-Length", "1000")))
        began = trio.current_time()
        while not exchange.outcome:
            await exchange.ask(h11.Data(data=b"x"))
            with trio.move_on_after(every):
                await exchange.ended.wait()
        assert isinstance(exchange.outcome[0], BodyTimeout)
        assert 20 <= trio.current_time() - began < 21


async def test_time_in_which_the_server_takes_nothing_is_not_the_clients(
    autojump_clock: trio.abc.Clock,
) -> None:
    near, far = trio.testing.memory_stream_pair()
    http, parts = HttpConnection(far), []
    await near.send_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\na")
    assert await http.next_head() is not None
    async for part in http.body_parts():
        parts.append(part)
        await trio.sleep(500)  # whoever takes it is slow
        if len(parts) < 3:
            await near.send_all(b"b")
    assert parts == [b"a", b"b", b"b"]


async def test_an_answer_that_stalls_in_the_middle_ends(autojump_clock: trio.abc.Clock) -> None:
    async with passing(pool=PoolSettings(stall_timeout=50)) as exchange:
        await exchange.ask(request("GET", "/v1/files"), h11.EndOfMessage())
        await exchange.asked()
        await exchange.asked()
        began = trio.current_time()
        await exchange.say(h11.Response(status_code=200, headers=[]), h11.Data(data=b"some"))
        await exchange.ended.wait()
        assert isinstance(exchange.outcome[0], AnswerBroken)
        assert trio.current_time() - began == 50


async def test_a_head_has_no_body(autojump_clock: trio.abc.Clock) -> None:
    async with passing() as exchange:
        await exchange.ask(request("HEAD", "/v1/models"), h11.EndOfMessage())
        await exchange.asked()
        await exchange.asked()
        await exchange.say(
            h11.Response(status_code=200, headers=[("Content-Length", "99")]), h11.EndOfMessage()
        )
        told = await exchange.said()
        assert list(told.headers) == [(b"content-length", b"99")]
        assert isinstance(await exchange.said(), h11.EndOfMessage)


async def test_a_client_that_leaves_ends_the_work(autojump_clock: trio.abc.Clock) -> None:
    async with passing() as exchange:
        await exchange.ask(request("POST", "/v1/responses/compact", ("Content-Length", "2")))
        await exchange.ask(h11.Data(data=b"{}"), h11.EndOfMessage())
        for _ in range(3):
            await exchange.asked()
        await trio.aclose_forcefully(exchange.client)
        assert isinstance(await exchange.asked(), h11.ConnectionClosed)
        await trio.testing.wait_all_tasks_blocked()
        assert [type(one) for one in exchange.outcome] == [ClientGone]


async def test_a_body_that_breaks_off_is_not_completed(autojump_clock: trio.abc.Clock) -> None:
    async with passing() as exchange:
        await exchange.ask(request("POST", "/v1/files", ("Content-Length", "9")), h11.Data(data=b"half"))
        await exchange.asked()
        await exchange.asked()
        await trio.aclose_forcefully(exchange.client)
        with pytest.raises(h11.RemoteProtocolError):
            await exchange.asked()
        await trio.testing.wait_all_tasks_blocked()
        assert [type(one) for one in exchange.outcome] == [BodyBroken]


async def test_an_answer_that_breaks_off_is_not_completed(autojump_clock: trio.abc.Clock) -> None:
    async with passing() as exchange:
        await exchange.ask(request("GET", "/v1/files/f/content"), h11.EndOfMessage())
        await exchange.asked()
        await exchange.say(h11.Response(status_code=200, headers=[]), h11.Data(data=b"half"))
        assert (await exchange.said()).status_code == 200
        await exchange.cut()
        await trio.testing.wait_all_tasks_blocked()
        assert [type(one) for one in exchange.outcome] == [AnswerBroken]


@pytest.mark.parametrize(("down", "code"), [(True, "upstream_unreachable"), (False, "upstream_lost")])
async def test_a_server_that_is_not_there(autojump_clock: trio.abc.Clock, down: bool, code: str) -> None:
    async with passing(down=down) as exchange:
        await exchange.ask(request("GET", "/v1/models"), h11.EndOfMessage())
        if not down:
            await exchange.asked()
            await exchange.cut()
        await trio.testing.wait_all_tasks_blocked()
        (refused,) = exchange.outcome
        assert isinstance(refused, Refused)
        assert (refused.status, refused.code) == (502, code)


async def test_a_body_that_is_too_large(autojump_clock: trio.abc.Clock) -> None:
    async with passing(HttpLimits(max_body=5)) as exchange:
        await exchange.ask(request("POST", "/v1/files", ("Content-Length", "6")), h11.Data(data=b"123456"))
        await trio.testing.wait_all_tasks_blocked()
        (refused,) = exchange.outcome
        assert isinstance(refused, Refused)
        assert refused.status == 413


async def test_another_upgrade_is_not_found(autojump_clock: trio.abc.Clock) -> None:
    async with passing() as exchange:
        upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
        await exchange.ask(request("GET", "/v1/realtime", *upgrade), h11.EndOfMessage())
        await trio.testing.wait_all_tasks_blocked()
        (refused,) = exchange.outcome
        assert isinstance(refused, Refused)
        assert refused.status == 404

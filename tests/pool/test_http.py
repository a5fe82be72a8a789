"""Turns over HTTP: events, refusals, losses, cancellation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pool.answer import refusal
from pool.auth import KeyFromCallable, Secret, StaticKey
from pool.emulator import Emulator, EmulatorSettings, Latency
from pool.errors import ConnectionLost, DialFailed, LocalProtocolError, RemoteProtocolError, SettingsError
from pool.http import HttpClient, open_http
from pool.settings import Endpoint, PoolSettings
from pool.wire.codec import to_json
from pool.wire.cycle import Finished
from pool.wire.events import ErrorEvent, ResponseCreate
from tests.support.http import Scripted, answer, http_client, streaming

HELLO = ResponseCreate(input="hello", fields={"model": "m", "store": False})
CREATED = b'{"type":"response.created","response":{"id":"r"}}'
DONE = b'{"type":"response.completed","response":{"id":"r","status":"completed","output":[]}}'
ITEM = b'{"type":"response.output_item.done","output_index":0,"item":{"type":"message","n":1}}'


def saying(script: str, **fields: Any) -> ResponseCreate:
    return ResponseCreate(
        input="hello", fields={"model": "m", "store": False, "metadata": {"emulator": script}, **fields}
    )


async def result(client: HttpClient, create: ResponseCreate = HELLO) -> Finished:
    async with client.line() as line:
        return await (await line.send(create)).result()


async def test_a_turn_and_the_next_on_the_same_connection(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(latency=Latency(base=2.0)))
    async with http_client(emulator) as (client, wires):
        async with client.line() as line:
            assert (line.connection_name, line.lane_name, line.remembers("r")) == ("http", "http", False)
            exchange = await line.send(HELLO)
            finished = await exchange.result()
            assert (finished.status, finished.error) == ("completed", None)
            assert finished.output == tuple(finished.response["output"])
            assert exchange.first_event_at == pytest.approx(exchange.sent_at + 2.0)
            assert exchange.first_output_at is not None
            assert exchange.ended_at == trio.current_time()
            assert exchange.size > 50
            assert await exchange.result() is finished
            assert await exchange.batch() == []
            with pytest.raises(LocalProtocolError, match="one turn"):
                await line.send(HELLO)
        assert (await result(client)).status == "completed"
        assert wires.opened == 1
        assert emulator.stats.http_requests == 2


async def test_events_one_by_one(autojump_clock: MockClock) -> None:
    async with http_client(Emulator()) as (client, _), client.line() as line:
        exchange = await line.send(saying("calls=0"), stream=True)
        kinds = []
        while events := await exchange.batch():
            kinds += [event.type for event in events]
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert "response.output_text.delta" in kinds
        assert (await exchange.result()).status == "completed"


async def test_what_exists_only_on_sockets_is_left_out(autojump_clock: MockClock) -> None:
    async with http_client(Emulator()) as (client, _):
        create = ResponseCreate(input="x", stream_id="lane-01", fields={"model": "m"})
        assert (await result(client, create)).status == "completed"
        with pytest.raises(LocalProtocolError, match="warm-up"):
            await result(client, ResponseCreate(generate=False, fields={"model": "m"}))


async def test_a_stored_parent(autojump_clock: MockClock) -> None:
    async with http_client(Emulator()) as (client, _):
        stored = {"model": "m", "store": True}
        first = await result(client, ResponseCreate(input="one", fields=stored))
        again = ResponseCreate(input="two", previous_response_id=first.response_id, fields=stored)
        assert (await result(client, again)).status == "completed"
        missing = await result(client, ResponseCreate(previous_response_id="resp_x", fields=stored))
        assert missing.status == "refused"
        assert missing.error is not None
        assert (missing.error.code, missing.error.status) == ("previous_response_not_found", 400)


async def test_output_that_the_terminal_event_leaves_out(autojump_clock: MockClock) -> None:
    async with http_client([streaming(CREATED, ITEM, DONE, b"[DONE]")]) as (client, _):
        assert (await result(client)).output == ({"type": "message", "n": 1},)


async def test_a_refusal_is_the_event_a_socket_would_carry(autojump_clock: MockClock) -> None:
    faults = "rate_limit,create=1,retry_after=7; error,create=2,status=503; failed,create=3,at=3"
    async with http_client(Emulator(EmulatorSettings(faults=faults))) as (client, wires):
        limited = (await result(client)).error
        assert isinstance(limited, ErrorEvent)
        assert (limited.status, limited.code, limited.kind) == (429, "rate_limit_exceeded", "tokens")
        assert limited.headers["retry-after"] == "7"
        async with client.line() as line:
            exchange = await line.send(HELLO, stream=True)
            assert [event.type for event in await exchange.batch()] == ["error"]
            assert await exchange.batch() == []
            assert (await exchange.result()).status == "refused"
        failed = await result(client)
        assert (failed.status, failed.error) == ("failed", None)
        assert wires.opened == 1  # refusals leave the connection as good as it was


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"no","code":"c"}}', "no"),
        (b"<html>Bad gateway</html>", "HTTP 502: <html>Bad gateway</html>"),
        (b'{"detail":"down"}', 'HTTP 502: {"detail":"down"}'),
        (b'{"error":"plain"}', 'HTTP 502: {"error":"plain"}'),
        (b"\xff", "HTTP 502: \ufffd"),
        (b"", "HTTP 502: no reason given"),
        (b"[" * 100_000, "HTTP 502: " + "[" * 300),
    ],
)
async def test_a_gateway_that_answers_anything(body: bytes, message: str, autojump_clock: MockClock) -> None:
    async with http_client([answer("502 Bad Gateway", body)]) as (client, _):
        error = (await result(client)).error
        assert error is not None
        assert (error.status, error.message) == (502, message)


def test_headers_of_a_refusal() -> None:
    kept = refusal(429, b"", {"retry-after-ms": "5", "set-cookie": "secret", "x-request-id": "q"})["headers"]
    assert kept == {"retry-after-ms": "5", "x-request-id": "q"}


@pytest.mark.parametrize(
    ("answer_bytes", "started"),
    [
        (b"", False),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", False),
        (streaming(CREATED, DONE, cut=40), True),
        (streaming(CREATED), True),
    ],
)
async def test_a_lost_connection(answer_bytes: bytes, started: bool, autojump_clock: MockClock) -> None:
    async with http_client([answer_bytes]) as (client, _):
        with pytest.raises(ConnectionLost) as caught:
            await result(client)
        assert (caught.value.sent, caught.value.started) == (True, started)


@pytest.mark.parametrize("at", [0, 2, 5])
async def test_a_server_that_breaks_off(at: int, autojump_clock: MockClock) -> None:
    async with http_client(Emulator(EmulatorSettings(faults=f"drop,at={at},times=1"))) as (client, wires):
        with pytest.raises(ConnectionLost) as caught:
            await result(client)
        assert (caught.value.sent, caught.value.started) == (True, at > 0)
        assert (await result(client)).status == "completed"
        assert wires.opened == 2


@pytest.mark.parametrize("garbage", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"])
async def test_no_http_at_all(garbage: bytes, autojump_clock: MockClock) -> None:
    async with http_client([garbage]) as (client, _):
        with pytest.raises(ConnectionLost):
            await result(client)


async def test_no_stream_of_events(autojump_clock: MockClock) -> None:
    bodies = [answer("200 OK", b"{}"), streaming(b"{nonsense"), streaming(b'{"type":1}')]
    async with http_client(bodies) as (client, _):
        for match in ("given application/json", "not JSON", "not a JSON object"):
            with pytest.raises(RemoteProtocolError, match=match):
                await result(client)


@pytest.mark.parametrize("at", [0, 3])
async def test_silence(at: int, autojump_clock: MockClock) -> None:
    settings = PoolSettings(stall_timeout=50)
    faults = f"stall,at={at}"
    async with http_client(Emulator(EmulatorSettings(faults=faults)), settings=settings) as (client, _):
        with pytest.raises(ConnectionLost, match="nothing came for 50 s") as caught:
            await result(client)
        assert caught.value.started is (at > 0)
        assert trio.current_time() == pytest.approx(50)


async def test_a_server_that_never_begins(autojump_clock: MockClock) -> None:
    async with http_client(Scripted([b""], linger=1000), settings=PoolSettings(stall_timeout=50)) as (
        client,
        _,
    ):
        with pytest.raises(ConnectionLost, match="nothing came") as caught:
            await result(client)
        assert caught.value.sent


@pytest.mark.parametrize("quarter", range(14))
async def test_cancelled_at_any_time(quarter: int, autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(latency=Latency(base=1.0, output=0.05)))
    async with http_client(emulator, connections=1) as (client, _):
        with trio.move_on_after(quarter / 4) as scope:
            await result(client, saying("calls=0 output_tokens=40"))
        assert scope.cancelled_caught is (quarter < 12)
        await wait_all_tasks_blocked()
        assert emulator.stats.abandoned == (0 < quarter < 12)
        with trio.fail_after(10):  # the one connection is free again
            assert (await result(client, saying("calls=0 output_tokens=1"))).status == "completed"


async def test_connections_are_bounded(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(latency=Latency(base=1.0)))
    async with http_client(emulator, connections=3) as (client, wires):
        async with trio.open_nursery() as nursery:
            for _ in range(7):
                nursery.start_soon(result, client)
        assert wires.opened == 3
        assert trio.current_time() == pytest.approx(3.0)


async def test_no_connection(autojump_clock: MockClock) -> None:
    async def refused() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise DialFailed("nobody answers")

    endpoint = Endpoint.emulator("http://emulator/v1")
    async with open_http(endpoint, transport=refused) as client:
        with pytest.raises(DialFailed, match="nobody answers"):
            await result(client)

    async def silent() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    async with open_http(endpoint, PoolSettings(dial_timeout=9), transport=silent) as client:
        with pytest.raises(DialFailed, match="cannot reach http://emulator: no answer within 9 s"):
            await result(client)


async def test_keys_and_headers(autojump_clock: MockClock) -> None:
    keys = iter(["first", "second"])
    endpoint = Endpoint(
        name="x",
        url="ws://h/v1/responses",
        http_url="http://user-host:81/api/v1/",
        auth=KeyFromCallable(lambda: next(keys)),
        headers={"X-Project": "p", "User-Agent": "mine"},
    )
    server = Scripted([streaming(DONE), streaming(DONE)])
    async with http_client(server, endpoint=endpoint) as (client, _):
        for key in (b"first", b"second"):
            await result(client)
            head = server.requests[-1]
            assert head.startswith(b"POST /api/v1/responses HTTP/1.1\r\n")
            lines = head.split(b"\r\n\r\n")[0].lower().split(b"\r\n")[1:]
            fields: Mapping[bytes, bytes] = dict(line.split(b": ", 1) for line in lines)
            assert fields[b"host"] == b"user-host:81"
            assert fields[b"authorization"] == b"bearer " + key
            assert fields[b"x-project"] == b"p"
            assert fields[b"user-agent"] == b"mine"
            assert fields[b"accept"] == b"text/event-stream"
            assert "second" not in repr(client)


async def test_no_key(autojump_clock: MockClock) -> None:
    async with http_client(
        Emulator(), endpoint=Endpoint.emulator("http://e/v1").with_(auth=StaticKey(Secret("")))
    ) as (client, _):
        with pytest.raises(DialFailed, match="no key for emulator") as caught:
            await result(client)
        assert caught.value.hopeless

    async def slow() -> str:
        await trio.sleep(1000)
        return "key"

    endpoint = Endpoint.emulator("http://e/v1").with_(auth=KeyFromCallable(slow))
    async with http_client(Emulator(), endpoint=endpoint) as (client, _):
        with pytest.raises(DialFailed, match=r"no key.*within 15 s"):
            await result(client)


async def test_a_wrong_key(autojump_clock: MockClock) -> None:
    async with http_client(Emulator(EmulatorSettings(api_key="right"))) as (client, _):
        error = (await result(client)).error
        assert error is not None
        assert (error.status, error.code) == (401, "invalid_api_key")


async def test_no_http_url() -> None:
    endpoint = Endpoint.emulator("http://e/v1").with_(http_url=None)
    with pytest.raises(SettingsError, match="http_url"):
        async with open_http(endpoint):
            pass


async def test_posting_json(autojump_clock: MockClock) -> None:
    async with http_client(Emulator()) as (client, _):
        body = to_json({"model": "m", "input": "x"})
        status, content, headers = await client.post("/responses/compact", body)
        assert status == 200
        assert content.startswith(b'{"id":"resp_')
        assert headers["content-type"] == "application/json"


async def test_an_answer_without_end(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool.answer.ANSWER_LIMIT", 1000)
    async with http_client([answer("200 OK", os.urandom(5000))]) as (client, _):
        with pytest.raises(RemoteProtocolError, match="over 1000 bytes"):
            await client.post("/x", b"{}")


async def test_a_server_that_takes_nothing(autojump_clock: MockClock) -> None:
    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        near, _far = trio.testing.lockstep_stream_pair()
        return near

    endpoint = Endpoint.emulator("http://e/v1")
    async with open_http(
        endpoint, PoolSettings(send_timeout=5, stall_timeout=60), transport=connect
    ) as client:
        with pytest.raises(ConnectionLost, match="took no data for 5 s") as caught:
            await result(client)
        assert not caught.value.sent

"""What is counted of turns over HTTP: by the client itself, and in the snapshot of the pool that it is beside."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pool.emulator import Emulator, EmulatorSettings, Latency
from pool.errors import ConnectionLost, DialFailed, RemoteProtocolError
from pool.http import HttpClient, open_http
from pool.settings import Endpoint, PoolSettings
from pool.stats import HttpStats, PoolStats
from pool.wire.codec import from_json, to_json
from pool.wire.events import ResponseCreate
from tests.support.http import Scripted, answer, http_client, streaming
from tests.support.http_world import both_ways
from tests.support.pool_server import FakeServer, pool_of
from tests.support.world import asking, take

HELLO = ResponseCreate(input="hello", fields={"model": "m", "store": False})
CREATED = b'{"type":"response.created","response":{"id":"r"}}'
DONE = b'{"type":"response.completed","response":{"id":"r","status":"completed","output":[]}}'
FAILED = (
    b'{"type":"response.failed","response":{"id":"r","status":"failed","error":{"code":"x"},"output":[]}}'
)


async def take_one(client: HttpClient) -> None:
    async with client.line() as line:
        await (await line.send(HELLO)).result()


async def test_what_is_open_and_under_way(autojump_clock: MockClock) -> None:
    emulator = Emulator(EmulatorSettings(latency=Latency(base=2.0)))
    async with http_client(emulator, connections=2) as (client, wires), trio.open_nursery() as nursery:
        assert client.stats() == HttpStats()
        for _ in range(3):
            nursery.start_soon(take_one, client)
        await trio.sleep(1)
        now = client.stats()
        # The third waits for a connection.
        assert (now.open, now.idle, now.in_flight, now.requests, now.turns) == (2, 0, 3, 3, {})
        await trio.sleep(2)
        now = client.stats()
        assert (now.open, now.idle, now.in_flight, now.turns) == (2, 1, 1, {"completed": 2})
        await trio.sleep(2)
        now = client.stats()
        assert (now.open, now.idle, now.in_flight, now.turns) == (2, 2, 0, {"completed": 3})
        assert (now.opened, wires.opened, now.dial.count) == (2, 2, 2)
        assert now.bytes_sent > 3 * 50
        assert now.bytes_received > now.bytes_sent
        assert now.first_event.count == now.first_token.count == now.turn.count == 3
        # Measured from the send, so the third's wait for a connection is in it.
        assert now.turn.max == pytest.approx(4.0, rel=0.01)
        assert now.turn.p50 == pytest.approx(2.0, rel=0.01)
        await client.aclose()
        assert client.stats().open == 0


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (streaming(CREATED, DONE), "completed"),
        (streaming(CREATED, FAILED), "failed"),
        (answer("429 Too Many Requests", b'{"error":{"message":"slow down","code":"slow_down"}}'), "refused"),
        (streaming(CREATED, DONE, cut=30), "lost"),
        (streaming(CREATED), "lost"),
        (b"", "lost"),
        (answer("200 OK", b"{}"), "lost"),
        (streaming(b"nonsense"), "lost"),
    ],
    ids=["completed", "failed", "refused", "cut", "no end", "no answer", "no stream", "nonsense"],
)
async def test_how_turns_ended(autojump_clock: MockClock, said: bytes, outcome: str) -> None:
    async with http_client([said]) as (client, _):
        try:
            await take_one(client)
        except (ConnectionLost, RemoteProtocolError):
            assert outcome == "lost"
        stats = client.stats()
        assert (stats.turns, stats.in_flight, stats.requests) == ({outcome: 1}, 0, 1)
        assert stats.turn.count == (outcome != "lost")


@pytest.mark.parametrize("at", [0.5, 3.0], ids=["before an answer", "in mid-stream"])
async def test_an_abandoned_turn(autojump_clock: MockClock, at: float) -> None:
    emulator = Emulator(EmulatorSettings(latency=Latency(base=2.0, output=1.0)))
    async with http_client(emulator) as (client, _):
        with trio.move_on_after(at):
            await take_one(client)
        await wait_all_tasks_blocked()
        stats = client.stats()
        assert (stats.turns, stats.in_flight, stats.turn.count) == ({"abandoned": 1}, 0, 0)


async def test_connections_that_cannot_be_opened(autojump_clock: MockClock) -> None:
    failures = [DialFailed("no", status=403), DialFailed("nobody answers")]

    async def connect() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if failures:
            raise failures.pop(0)
        await trio.sleep_forever()
        raise AssertionError

    endpoint, settings = Endpoint.emulator("http://emulator/v1"), PoolSettings(dial_timeout=3)
    async with open_http(endpoint, settings, transport=connect) as client:
        for _ in range(3):
            with pytest.raises(DialFailed):
                await take_one(client)
        stats = client.stats()
        assert stats.dial_failures == {"HTTP 403": 1, "no answer": 2}
        assert (stats.turns, stats.opened, stats.open, stats.requests) == ({}, 0, 0, 3), "nothing was sent"


async def test_requests_that_are_no_turns(autojump_clock: MockClock) -> None:
    async with http_client([answer("200 OK", b"{}")]) as (client, _):
        await client.post("/responses/compact", b"{}")
        assert (client.stats().requests, client.stats().turns) == (1, {})


async def test_a_pool_tells_of_what_goes_beside_it(clock: MockClock, server: FakeServer) -> None:
    async with (
        pool_of(server) as pool,
        http_client(Emulator()) as (one, _),
        http_client(Scripted([streaming(CREATED, DONE)])) as (other, _),
    ):
        assert pool.stats().http == HttpStats()
        for client in (one, other, one):  # named twice, counted once
            pool.beside(client)
        before = pool.stats()
        await take_one(one)
        await take_one(other)
        stats = pool.stats()
        assert stats.http == one.stats() + other.stats()
        assert stats.http.turns == {"completed": 2}
        # The sockets' own numbers know nothing of it.
        assert (stats.turn.count, stats.leased, stats.bytes_sent) == (0, 0, before.bytes_sent)
        assert (stats - before).http.turns == {"completed": 2}
        assert (stats + stats).http.opened == 4
        assert PoolStats.from_json(from_json(to_json(stats.to_json()))) == stats


async def test_a_scheduler_puts_its_own_beside_its_pool(autojump_clock: MockClock) -> None:
    async with both_ways(server=EmulatorSettings(frame_cap=16_384), frame_cap=16_384) as w:
        conversation = w.conversation()
        await take(conversation, "x" * 20_000)
        await conversation.compact(asking())
        stats = w.scheduler.stats()
        assert (stats.turns, stats.pool.http.turns) == (1, {"completed": 1})
        assert stats.pool.http.requests == 2
        assert w.scheduler.pool.stats().http.requests == 2

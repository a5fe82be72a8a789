"""What a gateway holds of requests is bounded: over all connections, for each client, and in time.

A body counts from its head on where its length is said, else as it comes, until its turn has ended. Where there is no
room, its client is told to come again; what a stranger sends is not kept at all.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pool.emulator import EmulatorSettings
from pool.errors import SettingsError
from pool.wire.codec import to_json
from scheduler.gateway.mint import mint
from scheduler.gateway.settings import GatewaySettings
from tests.emulator.client import connected, knobs
from tests.gateway.stage import KEY, staged
from tests.gateway.web import WebClient, web_client
from tests.support.frame_cases import CONT, TEXT, F

KIB = 1024
SMALL = GatewaySettings(max_body=100 * KIB, client_bodies=250 * KIB, max_bodies=450 * KIB)
HEAD = b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n"


async def begun(client: WebClient, size: int, *, chunked: bool = False) -> None:
    """Begin a body of so many bytes, and stop when it is a byte short."""
    if chunked:
        await client.stream.send_all(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        await client.stream.send_all(b"%x\r\n%b\r\n" % (size, b"x" * size))
    else:
        await client.stream.send_all(HEAD + b"content-length: %d\r\n\r\n" % size + b"x")
    await trio.testing.wait_all_tasks_blocked()


async def assert_no_room(client: WebClient, which: str) -> None:
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"], answer.headers["retry-after"]) == (503, "close", "1")
    assert answer.json["error"]["code"] == "server_is_overloaded"
    assert which in answer.json["error"]["message"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_under_way_are_bounded(autojump_clock: trio.abc.Clock, chunked: bool) -> None:
    async with (
        staged(settings=SMALL) as stage,
        web_client(stage, address="a") as one,
        web_client(stage, address="a") as two,
        web_client(stage, address="a") as three,
        web_client(stage, address="b") as four,
        web_client(stage, address="b") as five,
        web_client(stage, address="c") as six,
    ):
        for client in (one, two):
            await begun(client, 100 * KIB, chunked=chunked)
        assert stage.gateway.bodies.held == 200 * KIB
        await begun(three, 100 * KIB, chunked=chunked)
        await assert_no_room(three, "client_bodies")
        for client in (four, five):
            await begun(client, 100 * KIB, chunked=chunked)
        await begun(six, 100 * KIB, chunked=chunked)
        await assert_no_room(six, "max_bodies")
        assert stage.gateway.bodies.most <= 450 * KIB
        # A client that asks for little is served meanwhile.
        async with web_client(stage, address="c") as seven:
            assert (await seven.create(input="hello", metadata=knobs("calls=0"))).status == 200
        answer = await one.answer()  # it does not come
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        await trio.sleep(30)
        assert stage.gateway.bodies.held == 0
        assert stage.gateway.bodies.refused == 2
    stage.assert_quiet()


@pytest.mark.parametrize("every", [1, 19], ids=["a byte a second", "a byte now and then"])
async def test_a_body_has_a_least_rate(autojump_clock: trio.abc.Clock, every: float) -> None:
    async with staged() as stage, web_client(stage) as client, trio.open_nursery() as nursery:
        began = trio.current_time()
        await client.stream.send_all(HEAD + b"content-length: 1000\r\n\r\n")

        async def trickle() -> None:
            while True:
                await client.stream.send_all(b"x")
                await trio.sleep(every)

        nursery.start_soon(trickle)
        answer = await client.answer()
        assert (answer.status, answer.json["error"]["code"]) == (408, "request_timeout")
        assert 20 <= trio.current_time() - began < 21
        nursery.cancel_scope.cancel()
    stage.assert_quiet()


async def test_a_body_has_a_time_for_the_whole_of_it(autojump_clock: trio.abc.Clock) -> None:
    async with staged() as stage, web_client(stage) as client, trio.open_nursery() as nursery:
        began = trio.current_time()
        await client.stream.send_all(HEAD + b"content-length: 60000000\r\n\r\n")

        async def trickle() -> None:  # just fast enough
            while True:
                await client.stream.send_all(b"x" * 20_000)
                await trio.sleep(1)

        nursery.start_soon(trickle)
        assert (await client.answer()).status == 408
        assert trio.current_time() - began == pytest.approx(stage.gateway.settings.body_timeout, abs=1)
        nursery.cancel_scope.cancel()


async def test_a_body_at_an_honest_pace_is_read(autojump_clock: trio.abc.Clock) -> None:
    body = to_json({"model": "emulated", "input": "x" * 2_000_000, "metadata": knobs("calls=0")})
    async with staged() as stage, web_client(stage) as client:
        began = trio.current_time()
        await client.stream.send_all(HEAD + b"content-length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 20_000):
            await client.stream.send_all(body[start : start + 20_000])
            await trio.sleep(1)
        assert (await client.answer()).status == 200
        assert trio.current_time() - began > 100


async def test_a_body_counts_until_its_turn_has_ended(autojump_clock: trio.abc.Clock) -> None:
    body = to_json({"model": "emulated", "input": "x" * 5000, "metadata": knobs("calls=0")})
    async with staged(EmulatorSettings(latency="base=50")) as stage, web_client(stage) as client:
        await client.send("POST", "/v1/responses", body)
        await trio.sleep(40)
        assert stage.gateway.bodies.held == len(body)
        assert (await client.answer()).status == 200
        await trio.testing.wait_all_tasks_blocked()
        assert stage.gateway.bodies.held == 0
        await client.send("POST", "/v1/responses", body)
        await trio.sleep(40)
    await trio.sleep(5)
    assert stage.gateway.bodies.held == 0  # the client has left


async def test_a_strangers_body_is_not_kept(autojump_clock: trio.abc.Clock) -> None:
    _, key = mint("one")
    async with staged(policy="virtual", keys=[key]) as stage, web_client(stage) as client:
        await client.stream.send_all(HEAD + b"content-length: 50000000\r\n\r\n")
        for _ in range(10):
            await client.stream.send_all(b"x" * 100_000)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert stage.gateway.bodies.most == 0


async def test_virtual_keys_have_shares_of_their_own(autojump_clock: trio.abc.Clock) -> None:
    (first, one), (second, two) = mint("one"), mint("two")

    def head(key: str) -> bytes:
        return HEAD.replace(b"Bearer k", f"Bearer {key}".encode()) + b"content-length: 102400\r\n\r\n"

    async with (
        staged(policy="virtual", keys=[one, two], settings=SMALL) as stage,
        web_client(stage) as a,
        web_client(stage) as b,
        web_client(stage) as c,
        web_client(stage) as d,
    ):
        for client in (a, b, c):
            await client.stream.send_all(head(first))
            await trio.testing.wait_all_tasks_blocked()
        await assert_no_room(c, "client_bodies")
        await d.stream.send_all(head(second))
        await trio.testing.wait_all_tasks_blocked()
        assert stage.gateway.bodies.held == 300 * KIB


@pytest.mark.parametrize("name", ["client_bodies", "max_bodies"])
def test_there_is_room_for_the_largest_body(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}.*max_body"):
        GatewaySettings(max_body=2 * KIB, **{"client_bodies": 4 * KIB, "max_bodies": 4 * KIB, name: KIB})


# The same over WebSockets: messages under assembly, and creates that wait or run


async def test_an_incomplete_message_is_held_within_the_budget(autojump_clock: trio.abc.Clock) -> None:
    settings = GatewaySettings(max_body=64 * 1024, max_bodies=128 * 1024, client_bodies=64 * 1024)
    async with staged(settings=settings) as stage:
        async with connected(stage.gateway, headers=KEY) as client:
            first, more = (F(kind, b"a" * 30_000, fin=False).made(by_client=True) for kind in (TEXT, CONT))
            for frame in (first, more):
                await client.ws._stream.send_all(frame)
            await trio.testing.wait_all_tasks_blocked()
            assert stage.gateway.bodies.held == 60_000
            await client.ws._stream.send_all(more)
            assert (await client.until_closed())[1] == 1013
        await trio.testing.wait_all_tasks_blocked()
        assert stage.gateway.bodies.held == 0
        stage.assert_quiet()


async def test_creates_are_held_within_the_budget_until_they_end(autojump_clock: trio.abc.Clock) -> None:
    settings = GatewaySettings(max_body=64 * 1024, max_bodies=128 * 1024, client_bodies=64 * 1024)
    async with staged(EmulatorSettings(latency="base=5"), settings=settings) as stage:
        async with connected(stage.gateway, headers=KEY) as client:
            asked = {"input": "a" * 40_000, "metadata": knobs("calls=0")}
            await client.send(**asked)
            await client.send(**asked, stream_id="other")
            refused = await client.receive()
            assert (refused["error"]["code"], refused["stream_id"]) == ("server_is_overloaded", "other")
            assert (await client.rest())[-1]["type"] == "response.completed"
            await trio.testing.wait_all_tasks_blocked()
            assert stage.gateway.bodies.held == 0
            assert (await client.turn(**asked))["type"] == "response.completed"
        await trio.testing.wait_all_tasks_blocked()
        stage.assert_quiet()

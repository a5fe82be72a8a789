"""Faults as a client meets them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed, ConnectionRejected

from pool.emulator import Emulator, EmulatorSettings, context_digest
from tests.emulator.client import connected, knobs, said, user


def faulty(text: str, **more: object) -> Emulator:
    return Emulator(EmulatorSettings(faults=text, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [403, 426, 429, 503])
async def test_an_upgrade_can_be_refused(autojump_clock: MockClock, status: int) -> None:
    emulator = faulty(f"refuse,status={status},connection=1,retry_after=3")
    with pytest.RaisesGroup(pytest.RaisesGroup(ConnectionRejected)) as caught:
        async with connected(emulator):
            raise AssertionError
    rejected = caught.value.exceptions[0].exceptions[0]
    assert isinstance(rejected, ConnectionRejected)
    assert rejected.status_code == status
    assert rejected.headers is not None
    assert (b"retry-after", b"3") in rejected.headers
    async with connected(emulator) as client:
        assert (await client.turn())["type"] == "response.completed"
    assert emulator.stats.refused_connections == 1


@pytest.mark.parametrize(("how", "code"), [("close,code=1012", 1012), ("abrupt", 1006), ("midframe", 1006)])
async def test_a_drop_in_mid_response(autojump_clock: MockClock, how: str, code: int) -> None:
    emulator = faulty(f"drop,at=5,create=1,how={how}")
    async with connected(emulator) as client:
        await client.send()
        events, closed = await client.until_closed()
        assert [event["sequence_number"] for event in events] == [0, 1, 2, 3, 4]
        assert closed == code
    async with connected(emulator) as client:
        assert (await client.turn())["type"] == "response.completed"
    assert emulator.stats.abandoned == 1


async def test_a_drop_after_the_end_comes_after_the_end(autojump_clock: MockClock) -> None:
    async with connected(faulty("drop,at=500")) as client:
        assert (await client.turn())["type"] == "response.completed"
        with pytest.raises(ConnectionClosed):
            await client.receive()


async def test_a_stall_is_silence_and_then_goes_on(autojump_clock: MockClock) -> None:
    async with connected(faulty("stall,at=3,seconds=90")) as client:
        assert (await client.turn())["type"] == "response.completed"
        assert autojump_clock.current_time() == pytest.approx(90)


async def test_a_stall_without_an_end(autojump_clock: MockClock) -> None:
    emulator = faulty("stall,at=0")
    async with connected(emulator) as client:
        await client.send()
        with trio.move_on_after(1000) as scope:
            await client.receive()
        assert scope.cancelled_caught
    assert emulator.stats.abandoned == 1


async def test_slow_drip(autojump_clock: MockClock) -> None:
    async with connected(faulty("drip,at=4,seconds=2")) as client:
        await client.send(metadata=knobs("output_tokens=3"))
        events = await client.rest()
    assert autojump_clock.current_time() == pytest.approx(2 * (len(events) - 4))


async def test_rate_limits(autojump_clock: MockClock) -> None:
    async with connected(faulty("rate_limit,create=1; rate_limit,create=2,retry_after=1.5")) as client:
        plain = await client.turn()
        assert plain["status"] == 429
        assert plain["error"]["code"] == "rate_limit_exceeded"
        assert "headers" not in plain
        polite = await client.turn()
        assert polite["headers"] == polite["error"]["headers"] == {"retry-after": "1.5"}
        assert "Please try again in 1.5s" in polite["error"]["message"]
        assert (await client.turn())["type"] == "response.completed"


async def test_server_errors_evict_the_parent(autojump_clock: MockClock) -> None:
    async with connected(
        faulty("error,create=2; error,create=4,status=500; error,create=5,status=422")
    ) as client:
        parent = (await client.turn())["response"]["id"]
        overloaded = await client.turn(previous_response_id=parent)
        assert (overloaded["status"], overloaded["error"]["code"]) == (503, "server_is_overloaded")
        again = await client.turn(previous_response_id=parent)
        assert again["error"]["code"] == "previous_response_not_found"
        assert (await client.turn())["error"]["type"] == "server_error"
        assert (await client.turn())["status"] == 422


async def test_forgetting_a_parent(autojump_clock: MockClock) -> None:
    async with connected(faulty("forget")) as client:
        parent = (await client.turn())["response"]["id"]
        refused = await client.turn(previous_response_id=parent)
        assert refused["error"]["code"] == "previous_response_not_found"


async def test_a_response_that_fails_is_no_parent(autojump_clock: MockClock) -> None:
    emulator = faulty("failed,at=6,create=2")
    async with connected(emulator) as client:
        parent = (await client.turn())["response"]["id"]
        await client.send(previous_response_id=parent)
        events = await client.rest()
        assert [event["sequence_number"] for event in events] == list(range(7))
        failed = events[-1]
        assert failed["type"] == "response.failed"
        assert failed["response"]["error"]["code"] == "server_error"
        refused = await client.turn(stream_id="b", previous_response_id=failed["response"]["id"])
        assert refused["error"]["code"] == "previous_response_not_found"
        assert (await client.turn(previous_response_id=parent))["type"] == "response.completed"
    assert emulator.stats.failed == 1


async def test_failing_at_the_very_end(autojump_clock: MockClock) -> None:
    async with connected(faulty("failed,at=999,times=1")) as client:
        failed = await client.turn(store=True)
        assert failed["type"] == "response.failed"
        assert failed["response"]["output"][0]["type"] == "message"


async def test_an_empty_terminal_output_still_continues(autojump_clock: MockClock) -> None:
    async with connected(faulty("empty,create=1")) as client:
        await client.send()
        events = await client.rest()
        assert events[-1]["response"]["output"] == []
        items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        parent = events[-1]["response"]["id"]
        done = await client.turn(previous_response_id=parent, input="more")
        assert said(done).endswith(context_digest([user("hello"), *items, user("more")]))


async def test_a_huge_response(autojump_clock: MockClock) -> None:
    async with connected(faulty("huge,bytes=3000000")) as client:
        done = await client.turn(metadata=knobs("output_tokens=10"))
        assert len(said(done)) == 3_000_000


async def test_limit_errors(autojump_clock: MockClock) -> None:
    emulator = faulty("limit_create,create=1; limit_mid,at=4,create=2; limit_idle,after=7,connection=3")
    async with connected(emulator) as client:
        assert (await client.turn())["error"]["code"] == "websocket_connection_limit_reached"
        with pytest.raises(ConnectionClosed):
            await client.receive()
    async with connected(emulator) as client:
        await client.send()
        events = await client.rest()
        assert len(events) == 5
        assert events[-1]["error"]["code"] == "websocket_connection_limit_reached"
        with pytest.raises(ConnectionClosed):
            await client.receive()
    async with connected(emulator) as client:
        idle = await client.receive()
        assert idle["error"]["code"] == "websocket_connection_limit_reached"
        assert autojump_clock.current_time() == pytest.approx(7)


async def test_a_fault_asked_for_once_lets_the_retry_pass(autojump_clock: MockClock) -> None:
    emulator = Emulator()
    fields = {"metadata": knobs("fault=drop,at=5,once output_tokens=8")}
    async with connected(emulator) as client:
        await client.send(**fields)
        assert len((await client.until_closed())[0]) == 5
    async with connected(emulator) as client:
        assert (await client.turn(**fields))["type"] == "response.completed"


async def test_an_upgrade_that_hangs(autojump_clock: MockClock) -> None:
    emulator = faulty("hang,seconds=60,connection=1; hang,connection=2")
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(emulator.handle, far)
        await near.send_all(b"GET /v1/responses HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await near.receive_some(1) == b""
    assert autojump_clock.current_time() == pytest.approx(60)
    with trio.move_on_after(30) as scope:
        async with connected(emulator):
            raise AssertionError
    assert scope.cancelled_caught


async def test_a_deaf_server_answers_no_ping_but_notices_the_end(autojump_clock: MockClock) -> None:
    emulator = faulty("deaf,after=5")
    async with connected(emulator) as client:
        await client.ws.ping()
        assert (await client.turn())["type"] == "response.completed"
        await trio.sleep(6)
        await client.send()
        with trio.move_on_after(20) as scope:
            await client.ws.ping()
        assert scope.cancelled_caught
    assert emulator.stats.responses == 1
    assert emulator.stats.open_connections == 0

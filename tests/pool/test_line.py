"""The stream under the WebSocket library: who gets what, and who is woken when it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    MockClock,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from pool.line import HandshakeLost, Line

HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
PING = b"\x89\x01?"
FRAGMENT = b"\x01\x01a"
Peer = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


def text(said: str) -> bytes:
    return bytes((0x81, len(said))) + said.encode()


async def upgraded() -> tuple[Line, Peer]:
    """Return a line whose library has seen the upgrade, and the other end of its transport."""
    ours, peer = memory_stream_pair()
    line = Line(ours, 1000)
    await peer.send_all(HEAD)
    assert await line.receive_some(100) == HEAD
    line.upgraded = True
    return line, peer


async def test_messages_of_one_read_come_together_and_the_library_sees_the_rest() -> None:
    line, peer = await upgraded()
    await peer.send_all(text("a") + PING + text("b"))
    assert await line.receive_some(100) == PING
    assert await line.messages() == ["a", "b"]
    assert line.bytes_in == len(HEAD + text("a") + PING + text("b"))


async def test_a_read_of_nothing_but_messages_is_followed_by_the_next(nursery: trio.Nursery) -> None:
    line, peer = await upgraded()
    rest: list[bytes | bytearray] = []

    async def library() -> None:
        rest.append(await line.receive_some(100))

    nursery.start_soon(library)
    for said in ("a", "b"):
        await peer.send_all(text(said))
        assert await line.messages() == [said]
    assert not rest
    await peer.send_all(PING)
    await wait_all_tasks_blocked()
    assert rest == [PING]


async def test_half_a_message_wakes_nobody(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    line, peer = await upgraded()
    nursery.start_soon(line.receive_some, 100)
    await peer.send_all(text("whole")[:4])
    with trio.move_on_after(1) as waiting:
        await line.messages()
    assert waiting.cancelled_caught
    await peer.send_all(text("whole")[4:])
    assert await line.messages() == ["whole"]
    nursery.cancel_scope.cancel()


async def test_after_the_first_odd_frame_there_are_no_messages_any_more() -> None:
    line, peer = await upgraded()
    await peer.send_all(text("a") + FRAGMENT + text("b"))
    assert await line.receive_some(100) == FRAGMENT + text("b")
    assert await line.messages() == ["a"]
    assert await line.messages() == []
    assert await line.messages() == []


async def receive(line: Line) -> None:
    await line.receive_some(100)


async def send(line: Line) -> None:
    await line.send_all(b"x")


async def close(line: Line) -> None:
    await line.aclose()


@pytest.mark.parametrize(("use", "error"), [(receive, None), (send, trio.BrokenResourceError), (close, None)])
async def test_however_it_ends_whoever_waits_for_messages_is_told(
    use: Callable[[Line], Awaitable[None]], error: type[Exception] | None, nursery: trio.Nursery
) -> None:
    line, peer = await upgraded()
    told: list[list[str]] = []

    async def wait() -> None:
        told.append(await line.messages())

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    await peer.aclose()
    if error is None:
        await use(line)
    else:
        with pytest.raises(error):
            await use(line)
    await wait_all_tasks_blocked()
    assert told == [[]]


@pytest.mark.parametrize("use", [receive, send, close])
async def test_before_the_upgrade_every_end_is_a_lost_handshake(
    use: Callable[[Line], Awaitable[None]],
) -> None:
    ours, peer = memory_stream_pair()
    line = Line(ours, 1000)
    await peer.aclose()
    with pytest.raises(HandshakeLost):
        await use(line)


async def test_receiving_on_a_closed_transport_fails() -> None:
    line, _peer = await upgraded()
    await line.abandon()
    with pytest.raises(trio.ClosedResourceError):
        await line.receive_some(100)
    assert await line.messages() == []

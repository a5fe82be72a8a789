"""The stream under the WebSocket library: who gets what, and what is sent in which order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair, wait_all_tasks_blocked
from wsproto.frame_protocol import FrameDecoder, Opcode

from pool.line import HandshakeLost, Line
from pool.wire.frame import PIECE

HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
PING = b"\x89\x01?"
PONG = b"\x8a\x80\x00\xff\x00\xff"  # masked, with nothing in it; its key occurs nowhere else
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


async def test_messages_are_given_in_the_read_that_brings_them_and_the_library_sees_the_rest() -> None:
    line, peer = await upgraded()
    taken: list[str] = []
    line.listen(taken.append)
    await peer.send_all(text("a") + PING + text("b"))
    assert await line.receive_some(100) == PING
    assert taken == ["a", "b"]
    assert line.bytes_in == len(HEAD + text("a") + PING + text("b"))


async def test_what_came_before_anybody_listened_is_given_first() -> None:
    line, peer = await upgraded()
    await peer.send_all(text("a") + PING)
    await line.receive_some(100)
    taken: list[str] = []
    line.listen(taken.append)
    await peer.send_all(text("b") + PING)
    await line.receive_some(100)
    assert taken == ["a", "b"]


async def test_a_read_of_nothing_but_messages_is_followed_by_the_next(nursery: trio.Nursery) -> None:
    line, peer = await upgraded()
    taken: list[str] = []
    line.listen(taken.append)
    rest: list[bytes | bytearray] = []

    async def library() -> None:
        rest.append(await line.receive_some(100))

    nursery.start_soon(library)
    for said in (["a"], ["a", "b"]):
        await peer.send_all(text(said[-1]))
        await wait_all_tasks_blocked()
        assert taken == said
    assert not rest
    await peer.send_all(PING)
    await wait_all_tasks_blocked()
    assert rest == [PING]


async def test_half_a_message_is_given_to_nobody(nursery: trio.Nursery) -> None:
    line, peer = await upgraded()
    taken: list[str] = []
    line.listen(taken.append)
    nursery.start_soon(line.receive_some, 100)
    await peer.send_all(text("whole")[:4])
    await wait_all_tasks_blocked()
    assert taken == []
    await peer.send_all(text("whole")[4:])
    await wait_all_tasks_blocked()
    assert taken == ["whole"]
    nursery.cancel_scope.cancel()


async def test_after_the_first_odd_frame_everything_is_the_librarys() -> None:
    line, peer = await upgraded()
    taken: list[str] = []
    line.listen(taken.append)
    await peer.send_all(text("a") + FRAGMENT + text("b"))
    assert await line.receive_some(100) == FRAGMENT + text("b")
    assert taken == ["a"]


async def test_a_message_and_what_the_library_says_do_not_mix() -> None:
    line, peer = await upgraded()
    said = b"x" * (9 * PIECE)
    async with trio.open_nursery() as both:
        both.start_soon(line.send_message, [said])
        both.start_soon(line.send_all, PONG)
    sent = bytes(await peer.receive_some(10**7))
    assert len(sent) == 14 + len(said) + len(PONG)
    assert sent.startswith(PONG) or sent.endswith(PONG)


async def test_a_ping_is_six_bytes_that_a_server_understands() -> None:
    line, peer = await upgraded()
    assert await line.ping()
    sent = bytes(await peer.receive_some(100))
    assert len(sent) == 6
    decoder = FrameDecoder(client=False)
    decoder.receive_bytes(sent)
    frame = decoder.process_buffer()
    assert frame is not None
    assert (frame.opcode, frame.payload, frame.frame_finished) == (Opcode.PING, b"", True)


async def test_nobody_is_pinged_while_a_message_is_on_its_way() -> None:
    line, _peer = await upgraded()
    async with line._sending:
        assert not await line.ping()


async def test_after_a_farewell_there_are_no_more_messages() -> None:
    line, _peer = await upgraded()
    await line.send_all(b"\x88\x80abcd")
    with pytest.raises(trio.ClosedResourceError):
        await line.send_message([b"too late"])


async def receive(line: Line) -> None:
    await line.receive_some(100)


async def send(line: Line) -> None:
    await line.send_all(b"x")


async def close(line: Line) -> None:
    await line.aclose()


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

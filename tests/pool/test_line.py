"""The stream under the WebSocket library: who gets what, and what is sent in which order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_pair, wait_all_tasks_blocked
from wsproto.frame_protocol import FrameDecoder, Opcode

from pool.line import PARTING, HandshakeLost, Line
from pool.wire.frame import PIECE
from pool.wire.frame_reader import PASS_STEPS, End
from pool.wire.sieve import CLOSED

HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
PING = b"\x89\x01?"
FAREWELL = b"\x88\x00"
PONG = b"\x8a\x80\x00\xff\x00\xff"  # masked, with nothing in it; its key occurs nowhere else
FRAGMENT = b"\x01\x01a"
Peer = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


def text(said: str) -> bytes:
    return bytes((0x81, len(said))) + said.encode()


def control(sent: bytes) -> tuple[Opcode, bytes]:
    """Return what a control frame of a client says, which is all that was sent."""
    decoder = FrameDecoder(client=False)
    decoder.receive_bytes(sent)
    frame = decoder.process_buffer()
    assert frame is not None
    assert isinstance(frame.payload, bytes)
    assert not decoder.buffer.buffer
    return frame.opcode, frame.payload


async def upgraded() -> tuple[Line, Peer]:
    """Return a line whose library has seen the upgrade, and the other end of its transport."""
    ours, peer = memory_stream_pair()
    line = Line(ours, 1000)
    await peer.send_all(HEAD)
    assert await line.receive_some(100) == HEAD
    line.upgraded = True
    return line, peer


async def test_messages_are_given_in_the_read_that_brings_them_and_the_library_hears_of_the_end() -> None:
    line, peer = await upgraded()
    taken: list[str | bytes] = []
    line.listen(taken.append)
    await peer.send_all(text("a") + PING + text("b") + FAREWELL)
    assert await line.receive_some(100) == CLOSED
    assert taken == ["a", "b"]
    assert line.bytes_in == len(HEAD + text("a") + PING + text("b") + FAREWELL)


async def test_what_came_before_anybody_listened_is_given_first(nursery: trio.Nursery) -> None:
    line, peer = await upgraded()
    nursery.start_soon(line.receive_some, 100)
    await peer.send_all(text("a"))
    await wait_all_tasks_blocked()
    taken: list[str | bytes] = []
    line.listen(taken.append)
    await peer.send_all(text("b"))
    await wait_all_tasks_blocked()
    assert taken == ["a", "b"]
    nursery.cancel_scope.cancel()


async def test_a_read_of_nothing_but_messages_is_followed_by_the_next(nursery: trio.Nursery) -> None:
    line, peer = await upgraded()
    taken: list[str | bytes] = []
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
    await peer.send_all(FAREWELL)
    await wait_all_tasks_blocked()
    assert rest == [CLOSED]


async def test_of_the_pings_in_a_read_the_latest_is_answered(nursery: trio.Nursery) -> None:
    line, peer = await upgraded()
    nursery.start_soon(line.receive_some, 1 << 20)
    await peer.send_all(b"".join(b"\x89\x01%d" % (number % 10) for number in range(1000)))
    await wait_all_tasks_blocked()
    assert control(bytes(await peer.receive_some(1000))) == (Opcode.PONG, b"9")
    nursery.cancel_scope.cancel()


async def test_half_a_message_is_given_to_nobody(nursery: trio.Nursery) -> None:
    line, peer = await upgraded()
    taken: list[str | bytes] = []
    line.listen(taken.append)
    nursery.start_soon(line.receive_some, 100)
    await peer.send_all(text("whole")[:4])
    await wait_all_tasks_blocked()
    assert taken == []
    await peer.send_all(text("whole")[4:])
    await wait_all_tasks_blocked()
    assert taken == ["whole"]
    nursery.cancel_scope.cancel()


async def test_fragments_are_joined_here() -> None:
    line, peer = await upgraded()
    taken: list[str | bytes] = []
    line.listen(taken.append)
    await peer.send_all(text("a") + FRAGMENT + PING + b"\x80\x01b" + b"\x82\x03abc" + FAREWELL)
    assert await line.receive_some(100) == CLOSED
    assert taken == ["a", "ab", b""]


async def test_a_violation_is_answered_with_its_code_and_the_library_only_hears_of_it() -> None:
    line, peer = await upgraded()
    await peer.send_all(b"\x81\x01\xff")
    assert bytes(await line.receive_some(100)) == CLOSED
    assert line.end == End(1007, "a text message is not UTF-8", violation=True)
    kind, said = control(bytes(await peer.receive_some(200)))
    assert (kind, said[:2]) == (Opcode.CLOSE, (1007).to_bytes(2, "big"))
    await line.send_all(b"\x88\x80abcd")  # the library's answer to that close
    await line.send_all(PONG)
    await line.aclose()
    assert await peer.receive_some(100) == b"", "nothing follows a close"


async def test_a_violation_by_who_reads_nothing_is_not_waited_for(autojump_clock: trio.abc.Clock) -> None:
    line, peer = await upgraded()

    async def never(data: bytes | bytearray | memoryview) -> None:
        await trio.sleep_forever()

    line._transport.send_all = never  # type: ignore[method-assign]
    await peer.send_all(b"\xff\xff")
    assert bytes(await line.receive_some(100)) == CLOSED
    assert trio.current_time() == PARTING
    with pytest.raises(trio.ClosedResourceError):
        await line.send_message([b"too late"])


async def test_a_read_of_very_many_messages_holds_up_nobody(autojump_clock: trio.abc.Clock) -> None:
    line, peer = await upgraded()
    taken: list[str | bytes] = []
    line.listen(taken.append)
    most = 0

    async def watch() -> None:
        nonlocal most
        seen = 0
        while True:
            most, seen = max(most, len(taken) - seen), len(taken)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await peer.send_all(b"".join(text(str(number)) for number in range(5000)) + FAREWELL)
        assert await line.receive_some(1 << 20) == CLOSED
        nursery.cancel_scope.cancel()
    assert taken == [str(number) for number in range(5000)]
    assert most <= 2 * PASS_STEPS


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
    assert control(sent) == (Opcode.PING, b"")


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

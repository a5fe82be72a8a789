"""The server's side of a WebSocket, against wsproto's client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

from pool.upgrade import UpgradeRefused
from pool.web import HttpConnection
from pool.websocket import HIGH_WATERMARK, FrameLimits, SocketEnded, WebSocket, accept_websocket
from pool.wire.frame import TEXT, server_frame
from pool.wire.frame_reader import PASS_STEPS
from tests.support.frame_cases import CLOSE, CONT, PING, F


def frame(payload: bytes, *, kind: int = TEXT, fin: bool = True) -> bytes:
    """Return a frame of a client's."""
    return F(kind, payload, fin=fin).made(by_client=True)


@define(eq=False)
class Peer:
    """A client."""

    stream: trio.abc.Stream
    protocol: WSConnection = field(factory=lambda: WSConnection(ConnectionType.CLIENT))

    async def send(self, *events: Event) -> None:
        await self.stream.send_all(b"".join(map(self.protocol.send, events)))

    async def receive(self) -> list[Event]:
        """Return what one read brings, one after the other of a message's parts joined."""
        data = bytes(await self.stream.receive_some())
        self.protocol.receive_data(data or None)
        return list(self.protocol.events())

    async def texts(self, count: int) -> list[str]:
        found: list[str] = []
        part = ""
        while len(found) < count:
            for event in await self.receive():
                assert isinstance(event, TextMessage)
                part += event.data
                if event.message_finished:
                    found.append(part)
                    part = ""
        return found

    async def closing(self) -> CloseConnection:
        while True:
            for event in await self.receive():
                if isinstance(event, CloseConnection):
                    return event


@asynccontextmanager
async def joined(
    *,
    offers: Sequence[Any] = (),
    max_message: int = 1000,
    early: bytes = b"",
    running: bool = True,
    bare: bool = False,
    limits: FrameLimits | None = None,
) -> AsyncIterator[tuple[WebSocket, Peer]]:
    near: trio.abc.Stream
    far: trio.abc.Stream
    near, far = sockets() if bare else trio.testing.memory_stream_pair()
    peer = Peer(near)
    await near.send_all(peer.protocol.send(Request(host="h", target="/", extensions=list(offers))) + early)
    http = HttpConnection(far)
    head = await http.next_head()
    assert head is not None
    assert head.upgrade
    ws = await accept_websocket(far, http.raw, max_message=max_message, send_timeout=5, limits=limits)
    (accepted,) = await peer.receive()
    assert isinstance(accepted, AcceptConnection)
    async with trio.open_nursery() as nursery:
        if running:
            nursery.start_soon(ws.write)
        yield ws, peer
        nursery.cancel_scope.cancel()
    await near.aclose()
    await far.aclose()


def sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    near, far = trio.socket.socketpair()
    return trio.SocketStream(near), trio.SocketStream(far)


async def ended(ws: WebSocket) -> int:
    with pytest.raises(SocketEnded) as caught:
        await ws.receive()
    with pytest.raises(SocketEnded):
        ws.post(b"too late")
    with pytest.raises(SocketEnded):
        await ws.room()
    return caught.value.code


@pytest.mark.parametrize("offers", [[], [PerMessageDeflate()]], ids=["plain", "deflate"])
async def test_messages_both_ways(autojump_clock: trio.abc.Clock, offers: list[Any]) -> None:
    sizes = [0, 1, 125, 126, 65535, 65536, 200_000]
    async with joined(offers=offers, max_message=1 << 20) as (ws, peer):
        assert ws.compressed is bool(offers)
        for size in sizes:
            ws.post(b"x" * size)
        assert [len(text) for text in await peer.texts(len(sizes))] == sizes
        async with trio.open_nursery() as nursery:
            for size in sizes:
                nursery.start_soon(peer.send, TextMessage(data="ü" * size))
                got: list[str | bytes] = []
                while not got:
                    got = await ws.receive()
                assert got == ["ü" * size]
        if offers:
            assert ws.bytes_out < 5000


@given(st.binary(max_size=70_000))
def test_a_frame_is_what_wsproto_makes(text: bytes) -> None:
    protocol = FrameProtocol(client=False, extensions=[])
    as_text = text.decode("latin-1")
    assert server_frame(TEXT, as_text.encode()) == protocol.send_data(as_text, fin=True)


async def test_parts_make_one_message(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ws, peer):
        parts = [
            TextMessage(data="one ", message_finished=False),
            TextMessage(data="two ", message_finished=False),
        ]
        await peer.send(*parts, Ping(payload=b"alive?"), TextMessage(data="three"), TextMessage(data="!"))
        assert await ws.receive() == ["one two three", "!"]
        (pong,) = await peer.receive()
        assert pong == Pong(payload=b"alive?")


async def test_what_came_with_the_handshake_is_read(autojump_clock: trio.abc.Clock) -> None:
    frame = FrameProtocol(client=True, extensions=[]).send_data("at once", fin=True)
    async with joined(early=bytes(frame)) as (ws, _):
        assert await ws.receive() == ["at once"]


async def test_a_binary_message_is_told_apart(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ws, peer):
        await peer.send(BytesMessage(data=b"bytes"), TextMessage(data="text"))
        assert await ws.receive() == [b"", "text"]


@pytest.mark.parametrize("offers", [[], [PerMessageDeflate()]], ids=["plain", "deflate"])
async def test_a_message_that_is_too_long_ends_it(autojump_clock: trio.abc.Clock, offers: list[Any]) -> None:
    async with joined(offers=offers) as (ws, peer):
        await peer.send(TextMessage(data="y" * 1000))
        assert await ws.receive() == ["y" * 1000]
        await peer.send(TextMessage(data="fits"), TextMessage(data="y" * 1001))
        assert await ws.receive() == ["fits"]
        assert await ended(ws) == 1009
        assert (await peer.closing()).code == 1009


async def test_nonsense_ends_it(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ws, peer):
        await peer.stream.send_all(b"\xff\xff\xff\xff")
        assert await ended(ws) == 1002
        assert (await peer.closing()).code == 1002


async def test_the_client_closes(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ws, peer):
        await peer.send(TextMessage(data="last"), CloseConnection(code=1000, reason="done"))
        assert await ws.receive() == ["last"]
        assert await ended(ws) == 1000
        assert (await peer.closing()).code == 1000
        await ws.close(1000, "")


async def test_the_client_is_gone(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ws, peer):
        await trio.aclose_forcefully(peer.stream)
        assert await ended(ws) == 1006
        await ws.close(1000, "")


async def test_closing_says_what_is_left_first(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ws, peer), trio.open_nursery() as nursery:
        for number in range(3):
            ws.post(b"%d" % number)
        nursery.start_soon(ws.close, 1001, "restarting " * 20)
        seen: list[Event] = []
        while not seen or not isinstance(seen[-1], CloseConnection):
            seen += await peer.receive()
        assert [event.data for event in seen if isinstance(event, TextMessage)] == ["0", "1", "2"]
        assert isinstance(seen[-1], CloseConnection)
        assert seen[-1].code == 1001
        await peer.send(seen[-1].response())


async def test_a_client_that_answers_no_close_is_left(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ws, _):
        began = trio.current_time()
        await ws.close(1000, "")
        assert trio.current_time() - began == 2.0


async def test_a_full_outbox_makes_its_speakers_wait(autojump_clock: trio.abc.Clock) -> None:
    async with joined(running=False) as (ws, peer):
        ws.post(b"z" * HIGH_WATERMARK)
        with trio.move_on_after(60) as waiting:
            await ws.room()
        assert waiting.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.write)
            nursery.start_soon(ws.room)
            assert len((await peer.texts(1))[0]) == HIGH_WATERMARK
            await trio.testing.wait_all_tasks_blocked()
            await ws.room()
            nursery.cancel_scope.cancel()


async def test_on_a_bare_socket_a_message_leaves_on_the_spot_and_what_follows_at_once_in_one_go(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with joined(bare=True, running=False) as (ws, peer):
        ws.post(b"one")  # nobody is there to write it
        assert await peer.texts(1) == ["one"]
        ws.post(b"two")
        mock_clock.jump(1)
        ws.post(b"three")  # must not overtake
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.write)
            assert [event.data for event in await peer.receive() if isinstance(event, TextMessage)] == [
                "two",
                "three",
            ]
            nursery.cancel_scope.cancel()
        mock_clock.jump(1)
        ws.post(b"four")
        assert await peer.texts(1) == ["four"]


async def test_what_a_bare_socket_does_not_take_is_sent_when_it_does(
    mock_clock: trio.testing.MockClock,
) -> None:
    words = [b"%d " % number * 30_000 for number in range(20)]
    async with joined(bare=True) as (ws, peer):
        for text in words:
            mock_clock.jump(1)  # each would go on the spot
            ws.post(text)
        assert ws.full
        assert await peer.texts(len(words)) == [text.decode() for text in words]
        await ws.room()
        assert ws.bytes_out == sum(len(server_frame(TEXT, text)) for text in words)


async def test_a_bare_socket_that_is_broken_is_found_out() -> None:
    async with joined(bare=True) as (ws, peer):
        await peer.stream.aclose()
        ws.post(b"into the void")
        await trio.testing.wait_all_tasks_blocked()
        assert await ended(ws) == 1006


class Clogged(trio.abc.Stream):
    """A stream that takes nothing."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep_forever()

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


async def test_a_client_that_takes_nothing_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    async with joined(running=False) as (ws, _), trio.open_nursery() as nursery:
        ws._stream = Clogged(ws._stream)
        ws.post(b"z" * 2 * HIGH_WATERMARK)
        nursery.start_soon(ws.write)
        began = trio.current_time()
        with pytest.raises(SocketEnded, match="takes no data"):
            await ws.room()
        assert trio.current_time() - began == 5


async def test_a_ping_of_ours_is_answered(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(ended, ws)
        await trio.sleep(10)
        ws.ping()
        (ping,) = await peer.receive()
        assert isinstance(ping, Ping)
        await trio.sleep(1)
        await peer.send(ping.response())
        await trio.testing.wait_all_tasks_blocked()
        assert ws.last_inbound == trio.current_time()
        nursery.cancel_scope.cancel()


EMPTY = frame(b"", kind=CONT, fin=False)
PINGS = frame(b"", kind=PING)


@pytest.mark.parametrize(
    "flood",
    [PINGS * 10_000, frame(b"", fin=False) + EMPTY * 10_000, frame(b"") * 10_000],
    ids=["pings", "empty fragments", "empty messages"],
)
async def test_ten_thousand_frames_in_one_read_hold_up_nobody(
    autojump_clock: trio.abc.Clock, flood: bytes
) -> None:
    limits = FrameLimits(rate=1e6, burst=1_000_000, messages=1e6)
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def receive() -> None:
        while True:
            await ws.receive()

    # Early: all of it is there before the first read. The end comes after it, so that all of it is taken.
    early = flood + frame(b"", kind=CLOSE)
    async with joined(limits=limits, early=early) as (ws, _), trio.open_nursery() as nursery:
        nursery.start_soon(neighbour)
        with pytest.raises(SocketEnded, match="1005"):
            await receive()
        nursery.cancel_scope.cancel()
    assert turns >= 10_000 // PASS_STEPS - 1


async def test_a_client_that_pings_and_does_not_read_gathers_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with joined(running=False) as (ws, peer), trio.open_nursery() as nursery:
        ws.post(b"something before")
        nursery.start_soon(ended, ws)
        for number in range(1000):
            await peer.stream.send_all(frame(b"%d" % number, kind=PING))
            await trio.testing.wait_all_tasks_blocked()
        assert ws._waiting < 100
        nursery.start_soon(ws.write)
        pongs: list[Event] = []
        while not pongs or pongs[-1] != Pong(payload=b"999"):
            pongs += [event for event in await peer.receive() if isinstance(event, Pong)]
        assert len(pongs) == 2
        nursery.cancel_scope.cancel()


async def test_small_messages_are_never_refused_but_paced(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.stream.send_all, frame(b"steer") * 10_000)
        began = trio.current_time()
        got: list[str | bytes] = []
        while len(got) < 10_000:
            messages = await ws.receive()
            assert len(messages) <= PASS_STEPS
            got += messages
        assert got == ["steer"] * 10_000
        assert trio.current_time() - began == pytest.approx((10_000 - 2000) / 2000, rel=0.1)


@pytest.mark.parametrize("size", [1024, 4096, 131_072])
async def test_a_long_message_may_come_in_fragments_at_once(
    autojump_clock: trio.abc.Clock, size: int
) -> None:
    whole = 16 << 20
    first, more, last = (
        frame(b"x" * size, kind=kind, fin=fin) for kind, fin in ((TEXT, False), (CONT, False), (CONT, True))
    )
    async with joined(max_message=whole) as (ws, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.stream.send_all, first + more * (whole // size - 2) + last)
        (got,) = await ws.receive()
        assert len(got) == whole
        assert trio.current_time() == 0


async def test_breaking_off_says_what_was_said_and_then_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with joined() as (ws, peer):
        ws.post(b"before")
        await ws.break_off(b"\x81\x05hal")
        with pytest.raises(SocketEnded):
            ws.post(b"after")
        ws.ping()
        await ws.close(1000, "", patience=0)
        data = bytes(await peer.stream.receive_some())
        assert data == b"\x81\x06before\x81\x05hal"


@pytest.mark.parametrize(
    "headers", ["", "Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: a\r\n"]
)
async def test_no_handshake(autojump_clock: trio.abc.Clock, headers: str) -> None:
    near, far = trio.testing.memory_stream_pair()
    raw = f"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}\r\n"
    with pytest.raises(UpgradeRefused):
        await accept_websocket(far, raw.encode(), max_message=1, send_timeout=1)
    await near.aclose()

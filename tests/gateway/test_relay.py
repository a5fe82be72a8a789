"""A stream to one client whose socket takes what it likes: nothing is lost, doubled or out of order."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from attrs import define, field

from pool.wire.codec import event_of as event_from
from pool.wire.codec import parse, to_json
from pool.wire.events import ServerEvent
from scheduler.gateway.frames import Voice, sse
from scheduler.gateway.relay import COMMENT, Relay
from scheduler.gateway.settings import GatewaySettings


def event(kind: str, **fields: Any) -> ServerEvent:
    text = to_json({"type": kind, **fields}).decode()
    return event_from(parse(text), text)


CREATED = event("response.created", response={"id": "r"})


def word(number: int) -> ServerEvent:
    return event("response.output_text.delta", delta=str(number), sequence_number=number)


@define(eq=False)
class Socket:
    """Stands for the connection; takes some bytes of a push, and the rest when it is waited for."""

    rng: random.Random = field(factory=lambda: random.Random(1))
    taken: bytes = b""
    clogged: bool = False
    pushes: bool = True

    async def begin(self, _status: int, _headers: object) -> None:
        await trio.lowlevel.checkpoint()

    def framed(self, data: bytes) -> bytes:
        return data

    def push(self, data: bytes) -> bytes:
        size = 0 if self.clogged else self.rng.choice([0, 1, len(data) // 2, len(data), len(data)])
        self.taken += data[:size]
        return data[size:]

    async def send_rest(self, data: bytes) -> None:
        while self.clogged:  # noqa: ASYNC110  # a socket, not a task of ours
            await trio.sleep(1)
        await trio.sleep(self.rng.choice([0, 0.01, 0.2]))
        self.taken += data


def relay_on(socket: Socket) -> Relay:
    return Relay(socket, Voice(), GatewaySettings(keep_alive=100, send_timeout=5), {})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(8))
async def test_deltas_on_the_spot_and_in_turn_stay_in_order(
    autojump_clock: trio.abc.Clock, seed: int
) -> None:
    rng = random.Random(seed)
    socket = Socket(rng)
    relay = relay_on(socket)
    words = [word(number) for number in range(60)]
    queue: list[ServerEvent] = [CREATED]

    more = trio.Event()
    more.set()

    async def consume() -> None:
        nonlocal more
        while True:
            await more.wait()
            more = trio.Event()
            batch = list(queue)
            queue.clear()
            await relay.hear(batch)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.mind, nursery.cancel_scope)
        nursery.start_soon(consume)
        for one in words:
            if queue or not relay.at_once(one):
                queue.append(one)
                more.set()
            await trio.sleep(rng.choice([0, 0.005, 0.3]))
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    told = [CREATED, *words]
    assert socket.taken == b"".join(sse(one.type, Voice().text(one)) for one in told)


async def test_a_rest_is_sent_though_nothing_follows(autojump_clock: trio.abc.Clock) -> None:
    socket = Socket()
    relay = relay_on(socket)
    await relay.hear([CREATED, word(0)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.mind, nursery.cancel_scope)
        socket.clogged = True
        assert relay.at_once(word(1))
        assert not relay.at_once(word(2))
        await trio.sleep(2)
        socket.clogged = False
        await trio.sleep(2)
        assert socket.taken.endswith(sse("response.output_text.delta", Voice().text(word(1))))
        await trio.sleep(200)
        assert socket.taken.count(COMMENT) == 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_client_that_takes_nothing_is_cut(autojump_clock: trio.abc.Clock, waiting: bool) -> None:
    socket = Socket()
    relay = relay_on(socket)
    await relay.hear([CREATED, word(0)])
    socket.clogged = True
    with trio.move_on_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.mind, nursery.cancel_scope)
            if waiting:
                await relay.hear([word(1)])
            else:
                assert relay.at_once(word(1))
                await trio.sleep_forever()
    assert relay.gone
    assert trio.current_time() < 20


async def test_nothing_is_told_on_the_spot_before_output_or_where_it_must_wait(
    autojump_clock: trio.abc.Clock,
) -> None:
    relay = relay_on(Socket())
    assert not relay.at_once(word(0))
    await relay.hear([CREATED, word(0)])
    assert relay_on(Socket(pushes=False)).at_once(word(1)) is False

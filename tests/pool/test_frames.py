"""The pool's client takes every frame of a server that is right, and closes with the code a violation asks for."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from pool.dial import Dialer, Wire, WireClosed
from pool.settings import MIB, Endpoint, PoolSettings
from pool.wire.codec import from_json
from tests.support.frame_cases import BYTES, NOT_JSON, Case, cases
from tests.support.frame_peer import FramePeer, Heard, assert_heard

LIMIT = MIB  # the least that the settings allow
PROTOCOL_ERROR = 1002


def by_name(case: object) -> str:
    return case.name if isinstance(case, Case) else ""


def named(message: str | bytes) -> str:
    if isinstance(message, bytes):
        return BYTES
    try:
        return str(from_json(message)["type"])
    except ValueError:
        return NOT_JSON


async def spoken_to(case: Case, *, cut: bool) -> tuple[list[str | bytes], WireClosed, Heard]:
    """Have a client listen to the case's frames; return what it took, how it saw the end, and what it answered."""
    near, far = trio.testing.memory_stream_pair()
    server = FramePeer(far, client=False)
    taken: list[str | bytes] = []
    ends: list[WireClosed] = []

    async def transport() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return near

    async def use(wire: Wire) -> None:
        wire.listen(taken.append)
        try:
            await wire.receive()
        except WireClosed as end:
            ends.append(end)

    async def serve() -> None:
        await server.take_upgrade()
        await server.converse(case, cut=cut)
        await server.goodbye()

    dial = Dialer(Endpoint.emulator("http://server/v1"), PoolSettings(max_message=LIMIT), transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await dial(use, trio.CancelScope(deadline=math.inf))
    (end,) = ends
    return taken, end, server.heard


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("case", [case for case in cases(LIMIT) if case.offer is None], ids=by_name)
async def test_frames(autojump_clock: trio.abc.Clock, case: Case, cut: bool) -> None:
    taken, end, heard = await spoken_to(case, cut=cut)
    assert_heard(case, heard, list(map(named, taken)))
    assert end.code == case.code


@pytest.mark.parametrize("case", [case for case in cases(LIMIT) if case.offer is not None], ids=by_name)
async def test_what_is_compressed_without_having_been_agreed_on_is_wrong(
    autojump_clock: trio.abc.Clock, case: Case
) -> None:
    _, end, heard = await spoken_to(case, cut=False)
    assert end.code == heard.code == PROTOCOL_ERROR

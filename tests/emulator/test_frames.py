"""The emulator's WebSocket takes every frame that is right, and closes with the code that what is wrong asks for."""

from __future__ import annotations

import pytest
import trio

from pool.emulator import Emulator, EmulatorSettings
from tests.support.frame_cases import Case, cases
from tests.support.frame_peer import request
from tests.support.frame_server import check_case, check_handshake, spoken_to
from tests.support.handshake_cases import handshakes

LIMIT = 4096


def by_name(case: object) -> str:
    return case.name if isinstance(case, Case) else ""


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("case", cases(LIMIT), ids=by_name)
async def test_frames(autojump_clock: trio.abc.Clock, case: Case, cut: bool) -> None:
    emulator = Emulator(EmulatorSettings(frame_cap=LIMIT + 1, compression=True))
    await check_case(emulator, case, cut=cut)
    assert emulator.stats.open_connections == 0


async def test_compression_is_agreed_to_only_where_the_settings_say_so(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with spoken_to(Emulator()) as peer:
        head = await peer.upgrade(request(offer="permessage-deflate"))
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in head.lower()


@pytest.mark.parametrize(("asked", "status"), handshakes().values(), ids=list(handshakes()))
async def test_handshakes(autojump_clock: trio.abc.Clock, asked: bytes, status: int) -> None:
    emulator = Emulator(EmulatorSettings(compression=True))
    await check_handshake(emulator, asked, status)
    assert emulator.stats.crashes == 0

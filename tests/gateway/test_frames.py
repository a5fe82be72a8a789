"""The gateway's WebSocket takes every frame that is right, and closes with the code that what is wrong asks for."""

from __future__ import annotations

import pytest
import trio

from scheduler.gateway.settings import GatewaySettings
from tests.gateway.stage import staged
from tests.support.frame_cases import Case, cases
from tests.support.frame_server import check_case, check_handshake
from tests.support.handshake_cases import handshakes

LIMIT = 4096


def by_name(case: object) -> str:
    return case.name if isinstance(case, Case) else ""


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("case", cases(LIMIT), ids=by_name)
async def test_frames(autojump_clock: trio.abc.Clock, case: Case, cut: bool) -> None:
    async with staged(settings=GatewaySettings(max_message=LIMIT)) as stage:
        await check_case(stage.gateway, case, cut=cut)
        stage.assert_quiet()


@pytest.mark.parametrize(("asked", "status"), handshakes().values(), ids=list(handshakes()))
async def test_handshakes(autojump_clock: trio.abc.Clock, asked: bytes, status: int) -> None:
    async with staged() as stage:
        await check_handshake(stage.gateway, asked, status)
        stage.assert_quiet()

"""Servers that refuse by accepting first, and lanes that remember somebody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
from trio.testing import MockClock

from pool import Endpoint, Hold, Lanes, PoolSettings, open_pool
from pool.dial import Use, WireClosed
from pool.emulator import EmulatorSettings
from pool.wire.events import ResponseCreate
from tests.support.world import world


class Closing:
    """A wire that the server closes as soon as it is open."""

    bytes_in = bytes_out = 0
    last_inbound = 0.0

    def listen(self, take: Callable[[str], None]) -> None:
        pass

    async def receive(self) -> str | bytes:
        await trio.sleep(0.01)
        raise WireClosed(1008, "not entitled")

    async def send(self, message: Sequence[bytes]) -> None:
        raise WireClosed(1008, "not entitled")

    async def ping(self) -> bool:
        raise WireClosed(1008, "not entitled")


async def test_a_server_that_accepts_and_closes_is_not_dialled_in_a_loop(autojump_clock: MockClock) -> None:
    dials = 0

    async def dial(use: Use, _scope: trio.CancelScope) -> None:
        nonlocal dials
        dials += 1
        await use(Closing())

    endpoint = Endpoint(name="test", url="ws://test/v1/responses")
    async with open_pool(endpoint, PoolSettings(min_idle=4), dial=dial):
        await trio.sleep(600)
    assert 10 < dials < 120, "unheld it would be 20 a second"


async def test_a_lane_that_remembers_another_conversation_is_not_the_holders(
    autojump_clock: MockClock,
) -> None:
    server = EmulatorSettings(lanes=Lanes.single())
    async with world(server=server, pool=PoolSettings(max_connections=1)) as w:
        ada, bob = Hold("ada"), Hold("bob")
        async with w.pool.lease(ada) as lease:
            await (await lease.send(ResponseCreate(input="hi", fields={"model": "m"}))).result()
        assert ada.lane is not None
        async with w.pool.lease(bob) as lease:
            refused = await lease.send(ResponseCreate(input="hi", fields={}))  # no model
            assert (await refused.result()).status == "refused"
        assert ada.lost == "stolen"
        assert bob.lost == "failed"

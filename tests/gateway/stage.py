"""A gateway between a client and an emulator, over memory streams on trio's clock."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio
import trio.testing
from attrs import define

from pool.dial import Dial, Dialer
from pool.emulator import Emulator, EmulatorSettings
from pool.http import HttpClient
from pool.settings import Endpoint, PoolSettings
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.keys import KeyRing, Policy, VirtualKey
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.spool import Spool
from scheduler.gateway.upstreams import Upstreams
from scheduler.settings import SchedulerSettings
from tests.support.scripted import ScriptedServer
from tests.support.world import Network

KEY = {"authorization": "Bearer sk-client"}


@define(eq=False)
class Stage:
    """What a test of the gateway needs at hand."""

    gateway: Gateway
    network: Network
    http_side: Network

    @property
    def emulator(self) -> Emulator:
        """The server upstream."""
        assert isinstance(self.network.server, Emulator)
        return self.network.server

    def assert_quiet(self) -> None:
        """Nothing is under way upstream, and no client is connected."""
        assert self.gateway.connections == 0
        assert self.gateway.crashes == 0
        for scheduler in self.gateway.upstreams.sources.values():
            stats = scheduler.pool.stats()
            assert (stats.leased_lanes, stats.waiting) == (0, 0)


@asynccontextmanager
async def staged(
    server: EmulatorSettings | Emulator | ScriptedServer | None = None,
    *,
    settings: GatewaySettings | None = None,
    policy: Policy = "forward",
    keys: Sequence[VirtualKey] = (),
    pool: PoolSettings | None = None,
    scheduler: SchedulerSettings | None = None,
    http: bool = True,
    spool: Spool | None = None,
    key: str | None = None,
) -> AsyncIterator[Stage]:
    """Run a gateway whose upstream is an emulator, or a scripted server. Who gives a spool closes it."""
    serving = (
        server if isinstance(server, ScriptedServer | Emulator) else Emulator(server or EmulatorSettings())
    )
    endpoint = Endpoint.emulator("http://server/v1", key=key)
    if isinstance(serving, Emulator):
        endpoint = endpoint.with_(lanes=serving.settings.lanes, max_age=serving.settings.max_age)
    async with trio.open_nursery() as nursery:
        network, http_side = Network(serving, nursery), Network(serving, nursery)

        def dialer(endpoint: Endpoint, settings: PoolSettings) -> Dial:
            return Dialer(endpoint, settings, network.connect)

        def client(endpoint: Endpoint, settings: PoolSettings) -> HttpClient:
            return HttpClient(endpoint, settings, 8, http_side.connect)

        ring = KeyRing(policy, keys)
        upstreams = Upstreams(
            endpoint,
            settings or GatewaySettings(),
            pool or PoolSettings(min_idle=0),
            (scheduler or SchedulerSettings()).with_(tenants=ring.tenants),
            dial=dialer,
            http=client if http else None,
            rng=random.Random(1),
        )
        await nursery.start(upstreams.run)
        if spool is not None:
            nursery.start_soon(spool.run)
        yield Stage(Gateway(upstreams, upstreams.settings, ring, spool), network, http_side)
        nursery.cancel_scope.cancel()


async def until(ready: Callable[[], bool]) -> None:
    """Let others work until it is so."""
    while True:
        await trio.lowlevel.checkpoint()
        if ready():
            return

"""A pool whose connections say nothing, however many there are, and a dashboard over it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio
import trio.testing
from attrs import define, field

from pool.dial import Use, WireClosed
from pool.errors import DialFailed
from pool.lease import Lease
from pool.pool import Pool
from pool.settings import Endpoint, Lanes, PoolSettings
from pool.slots import Hold
from scheduler.dashboard.frame import Frame, frame_of
from scheduler.dashboard.history import History
from scheduler.dashboard.look import look_at
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.settings import SchedulerSettings
from scheduler.telemetry.address import Address
from scheduler.telemetry.options import TelemetryChoice
from scheduler.telemetry.telemetry import open_telemetry

LOCAL = Address("127.0.0.1", 0)


@define(eq=False)
class SilentWire:
    """A connection on which nothing ever comes, until it ends."""

    ended: trio.Event = field(factory=trio.Event, init=False)
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def last_inbound(self) -> float:
        """Never silent for long, as far as the pool can tell."""
        return trio.current_time()

    def listen(self, take: Callable[[str], None]) -> None:
        """Do nothing: nothing comes."""

    async def receive(self) -> str | bytes:
        """Wait for the end."""
        await self.ended.wait()
        raise WireClosed(1011, "deploying")

    async def send(self, message: Sequence[bytes]) -> None:
        """Swallow it."""
        await trio.lowlevel.checkpoint()

    async def ping(self) -> bool:
        """Answer at once."""
        await trio.lowlevel.checkpoint()
        return True


@define(eq=False)
class Stage:
    """A scheduler over silent connections. `refuse`: the next dials fail with this status."""

    scheduler: Scheduler
    wires: list[SilentWire]
    refusing: list[int]

    @property
    def pool(self) -> Pool:
        """The scheduler's pool."""
        return self.scheduler.pool

    async def lease(self, *names: str) -> list[Lease]:
        """Lease a lane for each of these conversations."""
        return [await self.pool.acquire(Hold(name), holder=name) for name in names]

    def frame(self, history: History | None = None) -> Frame:
        """Return what a page would be shown."""
        return frame_of(look_at(self.scheduler), history or History(), source="", sources=[""])


@asynccontextmanager
async def silent(
    connections: int = 4,
    *,
    lanes: Lanes | None = None,
    warm: int = 0,
    settings: SchedulerSettings | None = None,
    **pool: Any,
) -> AsyncIterator[Stage]:
    """Open a scheduler over silent connections, `warm` of them at once."""
    wires: list[SilentWire] = []
    refusing: list[int] = []

    async def dial(use: Use, _scope: trio.CancelScope) -> None:
        await trio.lowlevel.checkpoint()
        if refusing:
            raise DialFailed("ws://silent/v1 refused the upgrade (it said so)", status=refusing.pop())
        wire = SilentWire()
        wires.append(wire)
        await use(wire)

    endpoint = Endpoint(name="silent", url="ws://silent/v1/responses", lanes=lanes or Lanes.single())
    limits = {
        "max_connections": connections,
        "min_idle": warm,
        "dial_rate": 1e5,
        "dial_burst": 10_000,
        **pool,
    }
    async with open_scheduler(
        endpoint,
        pool_settings=PoolSettings(dial_concurrency=10_000, **limits),
        settings=settings,
        dial=dial,
        rng=random.Random(1),
    ) as scheduler:
        if warm:
            await trio.testing.wait_all_tasks_blocked()
        yield Stage(scheduler, wires, refusing)


@asynccontextmanager
async def served(sources: Mapping[str, Scheduler], address: Address = LOCAL) -> AsyncIterator[str]:
    """Serve a dashboard over these, and yield its URL as the user is told it."""
    said: list[str] = []
    async with AsyncExitStack() as stack:
        choice = TelemetryChoice(dashboard=address)
        await stack.enter_async_context(open_telemetry(choice, lambda: sources, say=said.append))
        (line,) = said
        yield line.removeprefix("dashboard: ")

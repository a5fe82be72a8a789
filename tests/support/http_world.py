"""A scheduler with both ways to an emulator, sockets and HTTP, over memory streams on trio's clock."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import trio
import trio.testing
from attrs import define, field

from pool.dial import Dialer
from pool.emulator import Emulator, EmulatorSettings
from pool.errors import DialFailed
from pool.http import open_http
from pool.settings import Endpoint, Lanes, PoolSettings
from scheduler.conversation import Conversation
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.settings import SchedulerSettings

REFUSAL = b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@define(eq=False)
class Side:
    """One way to the emulator. `state` can be changed at any time."""

    emulator: Emulator
    nursery: trio.Nursery
    state: Literal["up", "down", "refusing"] = "up"
    delay: float = field(default=0.0, init=False)  # s, to connect
    opened: int = field(default=0, init=False)
    servers: list[trio.abc.Stream] = field(factory=list, init=False)

    async def connect(self) -> trio.abc.Stream:
        """Open one connection."""
        await trio.sleep(self.delay)
        if self.state == "down":
            raise DialFailed("nobody answers")
        near, far = trio.testing.memory_stream_pair()
        self.opened += 1
        self.nursery.start_soon(self._refuse if self.state == "refusing" else self.emulator.handle, far)
        self.servers.append(far)
        return near

    async def _refuse(self, stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(REFUSAL)
        await stream.aclose()

    async def cut(self, state: Literal["up", "down", "refusing"]) -> None:
        """Cut every connection there is, and go on like this."""
        self.state = state
        for server in self.servers:
            await trio.aclose_forcefully(server)
        self.servers.clear()
        await trio.testing.wait_all_tasks_blocked()


@define(eq=False)
class BothWays:
    """What such a test needs at hand."""

    scheduler: Scheduler
    emulator: Emulator
    sockets: Side
    http: Side

    def conversation(self, *, store: bool = False) -> Conversation:
        """Return a new conversation."""
        return self.scheduler.conversation(store=store)


@asynccontextmanager
async def both_ways(
    *,
    server: EmulatorSettings | None = None,
    lanes: Lanes | None = None,
    pool: PoolSettings | None = None,
    settings: SchedulerSettings | None = None,
    sockets: Literal["up", "down", "refusing"] = "up",
    **endpoint: Any,
) -> AsyncIterator[BothWays]:
    """Open a scheduler on an emulator of its own."""
    server, pool = server or EmulatorSettings(), (pool or PoolSettings()).with_(read_interval=0.0)
    point = Endpoint.emulator("http://emulator/v1", lanes=lanes or server.lanes).with_(**endpoint)
    async with trio.open_nursery() as nursery:
        emulator = Emulator(server)
        socket_side, http_side = Side(emulator, nursery, sockets), Side(emulator, nursery)
        async with (
            open_http(point, pool, transport=http_side.connect) as http,
            open_scheduler(
                point,
                pool_settings=pool,
                settings=settings,
                dial=Dialer(point, pool, socket_side.connect),
                http=http,
                rng=random.Random(1),
            ) as scheduler,
        ):
            yield BothWays(scheduler, emulator, socket_side, http_side)
        nursery.cancel_scope.cancel()


def reasons(conversation: Conversation) -> list[str]:
    """Return why each turn went as it did."""
    return [placement.reason for placement in conversation.placements]

"""A gateway before an emulator, both in a thread of their own, for clients that live on asyncio or in Node.js."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from attrs import define, field

from pool.emulator import Emulator, EmulatorSettings, serve_emulator
from pool.settings import Endpoint, PoolSettings
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.keys import KeyRing
from scheduler.gateway.server import RunningGateway, serve_gateway
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.upstreams import Upstreams
from scheduler.settings import SchedulerSettings

KEY = "sk-test-gateway"

# What breaks upstream, now and then. A lost connection takes all its lanes along.
FAULTS = (
    "drop,how=close,at=0,p=0.01;drop,how=abrupt,at=1,p=0.01;limit_create,p=0.01;rate_limit,p=0.02,retry_after=0.02;"
    "error,status=503,p=0.02;forget,p=0.03;refuse,status=503,p=0.05;empty,p=0.05"
)


@define(eq=False)
class Behind:
    """What such a test needs at hand. The counts are there when the block has ended."""

    running: RunningGateway
    emulator: Emulator
    reasons: Counter[str] = field(factory=Counter, init=False)  # how turns were placed
    retries: Counter[str] = field(factory=Counter, init=False)
    rotated: int = field(default=0, init=False)  # sockets upstream

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return self.running.url

    @property
    def gateway(self) -> Gateway:
        """The gateway."""
        return self.running.gateway

    def assert_conversations_go_on(self, count: int, turns: int) -> None:
        """Each of so many conversations was begun once, and went on where it was.

        Which turns are in flight at the same time depends on the operating system: when sixteen of one socket are, a
        conversation may move to another one instead of waiting.
        """
        moved = {"replay:moved", "replay:stolen"}
        assert self.reasons.total() == count * turns
        assert self.reasons["replay:new"] == count
        assert set(self.reasons) <= {"replay:new", "hot", *moved}, self.reasons
        assert self.reasons["hot"] >= 0.8 * count * (turns - 1), self.reasons

    def count(self) -> None:
        """Take the counts of all callers."""
        for scheduler in self.gateway.upstreams.sources.values():
            stats = scheduler.stats()
            self.reasons.update(stats.placements)
            self.retries.update(stats.retries)
            self.rotated += stats.pool.rotated


@contextmanager
def behind_gateway(
    faults: str = "", *, seed: int = 1, script: str = "", rotate_every: float | None = None
) -> Iterator[Behind]:
    """Serve both; at the end nothing may be left over, and nothing may have crashed.

    `rotate_every`: so many seconds all sockets upstream are replaced.
    """
    ready = threading.Event()
    found: list[tuple[Behind, trio.lowlevel.TrioToken, trio.Event]] = []
    left: list[object] = []
    settings = EmulatorSettings(api_key=KEY, faults=faults, seed=seed, default_script=script)

    async def serve() -> None:
        over = trio.Event()
        async with serve_emulator(settings) as emulator:
            patience = SchedulerSettings(attempts=20, backoff=0.01, backoff_max=0.1)
            upstreams = Upstreams(
                Endpoint.emulator(emulator.url),
                GatewaySettings(),
                PoolSettings(dial_rate=200, dial_attempts=8, close_grace=0.5),
                patience,
                rng=random.Random(seed),
            )
            gateway = Gateway(upstreams, upstreams.settings, KeyRing("forward"))
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            async with serve_gateway(gateway, listeners) as running:
                found.append((Behind(running, emulator.emulator), trio.lowlevel.current_trio_token(), over))
                ready.set()
                while not over.is_set():
                    with trio.move_on_after(rotate_every or float("inf")):
                        await over.wait()
                    for scheduler in upstreams.sources.values():
                        scheduler.pool.rotate()
                cut = await running.stop(5)
                found[0][0].count()
                for scheduler in upstreams.sources.values():
                    stats = scheduler.pool.stats()
                    left.append((stats.leased_lanes, stats.waiting))
                left.append((cut, gateway.crashes + upstreams.crashes))

    thread = threading.Thread(target=trio.run, args=(serve,), daemon=True)
    thread.start()
    assert ready.wait(10)
    behind, token, over = found[0]
    try:
        yield behind
    finally:
        token.run_sync_soon(over.set)
        thread.join(15)
    assert not thread.is_alive()
    assert set(left) == {(0, 0)}
    assert behind.emulator.stats.crashes == 0

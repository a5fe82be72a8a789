"""The gateway in a process of its own, for `bench.gateway`: says what it used whenever it is asked."""

from __future__ import annotations

import os
import sys
import time

import trio
from attrs import define, field

from pool.settings import Endpoint, PoolSettings
from pool.wire.codec import to_json
from scheduler.commands.serving import tune_collector
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.keys import KeyRing
from scheduler.gateway.server import serve_gateway
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.upstreams import Upstreams
from scheduler.settings import SchedulerSettings

TICK = 0.02  # s, between two looks at how late the event loop is: each costs as much as an event


@define(eq=False)
class Meter:
    """How late the event loop is, and what the process has used, since the last reading."""

    late: list[float] = field(factory=list, init=False)
    cpu: float = field(factory=time.process_time, init=False)
    since: float = field(factory=trio.current_time, init=False)

    async def run(self) -> None:
        """Look again and again."""
        while True:
            due = trio.current_time() + TICK
            await trio.sleep_until(due)
            self.late.append(trio.current_time() - due)

    def read(self) -> dict[str, float]:
        """Return the figures, and begin anew."""
        late, cpu, now = sorted(self.late), time.process_time(), trio.current_time()
        read = {
            "cpu": cpu - self.cpu,
            "seconds": now - self.since,
            "p50": late[len(late) // 2] if late else 0.0,
            "p99": late[len(late) * 99 // 100] if late else 0.0,
            "max": late[-1] if late else 0.0,
        }
        self.late, self.cpu, self.since = [], cpu, now
        return read


async def main(url: str, connections: int) -> None:
    """Serve a gateway to `url`; answer each line on stdin with a reading, until it ends."""
    settings = GatewaySettings()
    upstreams = Upstreams(
        Endpoint.emulator(url),
        settings,
        PoolSettings(max_connections=connections, dial_rate=1e6, dial_burst=connections),
        SchedulerSettings(transport="websocket"),
    )
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    async with (
        serve_gateway(Gateway(upstreams, settings, KeyRing("open")), listeners) as running,
        trio.open_nursery() as nursery,
    ):
        meter = Meter()
        nursery.start_soon(meter.run)
        print(running.url, flush=True)
        async for _ in trio.lowlevel.FdStream(os.dup(0)):
            sys.stdout.buffer.write(to_json(meter.read()) + b"\n")
            sys.stdout.flush()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    tune_collector()
    trio.run(main, sys.argv[1], int(sys.argv[2]))

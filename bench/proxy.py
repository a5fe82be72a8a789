"""A TCP proxy that makes loopback a network: delay, bandwidth, and cut connections. `python -m bench.proxy --help`.

Each direction of a connection is a queue of (when due, bytes): what comes in is read at once and written when it is
due, so a delay does not throttle, and order is kept. Opening a connection costs one round trip, as TCP's handshake
does: the first bytes wait for it. There is no loss and no slow start, so big messages do better here than on a real
network. Ends when its standard input does, and then prints the bytes it has carried as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from attrs import define, field

CHUNK = 65536


@define(eq=False)
class Network:
    """One network: `delay` seconds one way, `rate` bytes a second each way for each connection."""

    delay: float = 0.0
    rate: float = math.inf
    up: int = field(default=0, init=False)
    down: int = field(default=0, init=False)
    _alive: list[trio.CancelScope] = field(factory=list, init=False)

    async def carry(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        """Carry one connection until both sides have ended it, or it is cut."""
        with trio.CancelScope() as scope:
            self._alive.append(scope)
            async with client, server, trio.open_nursery() as nursery:
                nursery.start_soon(self._pipe, client, server, self._count_up, 2 * self.delay)
                nursery.start_soon(self._pipe, server, client, self._count_down, 0.0)
        self._alive.remove(scope)

    async def cut(self, every: float, rng: random.Random) -> None:
        """Cut one connection after another."""
        while True:
            await trio.sleep(every)
            if self._alive:
                rng.choice(self._alive).cancel()

    async def _pipe(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        count: Callable[[int], None],
        handshake: float,
    ) -> None:
        send, receive = trio.open_memory_channel[tuple[float, bytes]](math.inf)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, sink, receive)
                async with send:
                    free = trio.current_time() + handshake
                    async for data in source:
                        count(len(data))
                        free = max(free, trio.current_time()) + len(data) / self.rate
                        await send.send((free + self.delay, bytes(data)))
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(source)

    async def _write(
        self, sink: trio.SocketStream, receive: trio.MemoryReceiveChannel[tuple[float, bytes]]
    ) -> None:
        async for due, data in receive:
            await trio.sleep_until(due)
            await sink.send_all(data)
        await sink.send_eof()

    def _count_up(self, size: int) -> None:
        self.up += size

    def _count_down(self, size: int) -> None:
        self.down += size


async def serve(
    network: Network, host: str, port: int, cut: float | None, until: Callable[[], Awaitable[None]]
) -> None:
    """Serve on a port of its own, which is printed, until `until` ends."""

    async def handle(client: trio.SocketStream) -> None:
        await network.carry(client, await trio.open_tcp_stream(host, port))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        if cut is not None:
            nursery.start_soon(network.cut, cut, random.Random(1))
        print(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", flush=True)
        await until()
        nursery.cancel_scope.cancel()
    print(json.dumps({"up": network.up, "down": network.down}), flush=True)


async def _end_of_input() -> None:
    stdin = trio.lowlevel.FdStream(0)
    while await stdin.receive_some():
        pass


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.proxy")
    parser.add_argument("to", metavar="HOST:PORT")
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="one way; half a round trip")
    parser.add_argument(
        "--rate", type=float, default=math.inf, metavar="B/S", help="for each connection, each way"
    )
    parser.add_argument("--cut", type=float, metavar="S", help="cut a connection every so many seconds")
    arguments = parser.parse_args()
    host, _, port = arguments.to.rpartition(":")

    async def start() -> None:
        network = Network(arguments.delay, arguments.rate)
        await serve(network, host, int(port), arguments.cut, _end_of_input)

    trio.run(start)


if __name__ == "__main__":
    main()

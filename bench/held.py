"""How long one request holds the gateway's event loop: `python -m bench.held --help`.

The emulator and the gateway are processes of their own. Each body of `bench.hostile_bodies` is sent once over HTTP
and, where it is no larger than a message may be, over a WebSocket. Printed is the longest step that any task of the
gateway took meanwhile, as CPU time: what the machine does besides does not count.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from urllib.parse import urlsplit

import trio
from attrs import define, field
from trio_websocket import ConnectionClosed, open_websocket_url

from bench.hostile_bodies import BODIES, MIB
from bench.machine import ROOT, describe
from bench.server import emulator
from pool.settings import Endpoint, PoolSettings
from pool.wire.codec import from_json, to_json
from scheduler.commands.serving import tune_collector
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.keys import KeyRing, VirtualKey, digest_of
from scheduler.gateway.server import serve_gateway
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.upstreams import Upstreams

BOUND = 10.0  # ms
KEY = "wl-bench"
AUTHORIZED = [(b"authorization", b"Bearer " + KEY.encode())]
PATIENCE = 60.0  # s, for one body


@define(eq=False)
class Holds(trio.abc.Instrument):
    """The longest step of any task since the last reading, in CPU seconds, and whose it was."""

    longest: float = 0.0
    whose: str = ""
    total: float = field(factory=time.process_time)
    collected: str = ""  # the longest run of the garbage collector, and its generation
    _collecting: float = field(default=0.0, init=False)
    _collection: float = field(default=0.0, init=False)
    _began: float = field(default=0.0, init=False)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task begins to run."""
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It has ended, or waits again."""
        held = time.thread_time() - self._began
        if held > self.longest:
            self.longest, self.whose = held, task.name.rsplit(".", 1)[-1]

    def collecting(self, phase: str, info: dict[str, int]) -> None:
        """The garbage collector begins, or has ended."""
        now = time.thread_time()
        if phase == "start":
            self._collecting = now
        elif now - self._collecting > self._collection:
            self._collection = now - self._collecting
            self.collected = f"gc {info['generation']}: {1e3 * self._collection:.1f} ms"

    def read(self) -> dict[str, object]:
        """Return the figures, and begin anew."""
        now = time.process_time()
        read = {"longest": 1e3 * self.longest, "whose": self.whose, "cpu": now - self.total}
        read["gc"] = self.collected
        self.longest, self.whose, self.total = 0.0, "", now
        self.collected, self._collection = "", 0.0
        return read


async def serve(url: str) -> None:
    """Serve a gateway to `url`; answer each line on stdin with a reading, until it ends."""
    settings, holds = GatewaySettings(), Holds()
    upstreams = Upstreams(Endpoint.emulator(url), settings, PoolSettings(max_connections=4))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    # A virtual key costs most: everything is searched for ids
    ring = KeyRing("virtual", [VirtualKey(name="bench", digest=digest_of(KEY))])
    async with serve_gateway(Gateway(upstreams, settings, ring), listeners) as running:
        print(running.url, flush=True)
        trio.lowlevel.add_instrument(holds)
        gc.callbacks.append(holds.collecting)
        async for _ in trio.lowlevel.FdStream(os.dup(0)):
            sys.stdout.buffer.write(to_json(holds.read()) + b"\n")
            sys.stdout.flush()


async def over_http(host: str, port: int, body: bytes) -> str:
    """Send a body; return the status, or what went wrong."""
    stream = await trio.open_tcp_stream(host, port)
    head = b"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    head += b"authorization: Bearer " + KEY.encode() + b"\r\n"
    head += b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    answer = b""
    async with stream:
        try:
            await stream.send_all(head + body)
            while data := await stream.receive_some(65536):
                answer = answer or data
        except trio.BrokenResourceError:
            pass
    return answer[9:12].decode() or "cut"


async def over_websocket(host: str, port: int, body: bytes) -> str:
    """Send a create of this body; return the type of its last event."""
    kind = ""
    url = f"ws://{host}:{port}/v1/responses"
    try:
        async with open_websocket_url(url, max_message_size=256 * MIB, extra_headers=AUTHORIZED) as socket:
            await socket.send_message(
                (b'{"type":"response.create",' + body.lstrip()[1:]).decode(errors="replace")
            )
            while kind not in ("error", "response.completed", "response.failed", "response.incomplete"):
                kind = from_json(await socket.get_message())["type"]
    except ConnectionClosed as closed:
        kind = f"closed {closed.reason.code if closed.reason else ''}"
    return kind.removeprefix("response.")


async def attack(url: str, process: subprocess.Popen[str], over: int, only: str) -> float:
    """Send each body both ways, and print the figures; return the longest step of all, in ms."""
    host, port, worst = urlsplit(url).hostname or "", urlsplit(url).port or 0, 0.0
    for name, make in BODIES.items():
        body = make(over)
        for way, send in (("http", over_http), ("websocket", over_websocket)):
            if only not in name or (way == "websocket" and len(body) > 15.9 * MIB):
                continue
            read(process)
            said = "no answer"
            with trio.move_on_after(PATIENCE):
                said = await send(host, port, body)
            got = read(process)
            worst = max(worst, got["longest"])
            mark = "  <-- over the bound" if got["longest"] > BOUND else ""
            print(
                f"{name:34} {way:9} {len(body) / MIB:6.2f} MiB  {got['longest']:7.2f} ms  "
                f"{got['cpu']:6.2f} s CPU  {said:12} {got['whose']} {got['gc']}{mark}",
                flush=True,
            )
    return worst


def read(process: subprocess.Popen[str]) -> dict[str, float]:
    """Read what the gateway has used since the last time."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    found: dict[str, float] = from_json(process.stdout.readline())
    return found


def main() -> None:
    """Run everything, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.held", description=__doc__)
    parser.add_argument("--mib", type=float, default=60.0, help="size of a long body (default 60)")
    parser.add_argument("--only", default="", help="bodies whose names have this")
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    tune_collector()
    if options.serve:
        trio.run(serve, options.serve)
        return
    print(describe())
    with emulator() as url:
        argv = [sys.executable, "-m", "bench.held", "--serve", url]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            gateway = process.stdout.readline().strip()
            worst = trio.run(attack, gateway, process, int(options.mib * MIB), options.only)
            process.stdin.close()
    print(f"longest step {worst:.2f} ms; bound {BOUND:g} ms")


if __name__ == "__main__":
    main()

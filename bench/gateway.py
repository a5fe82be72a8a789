"""What the gateway costs, and what it saves: `python -m bench.gateway --help`.

Emulator, gateway and clients are processes of their own. Two questions, each answered in one run:

1. Clients that keep no state walk through conversations with tools, their whole history in every request, straight to
   the emulator over HTTP and through the gateway, in turns. Compared are the time to the first event, the bytes that
   reach the server, and the gateway's CPU for a turn.
2. Many streams at once, each with so many events a second, over HTTP and over WebSockets in turns: how much of a core
   does the gateway take, how late is its event loop, and does it fall behind? The clients do as little as they can.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import trio
from attrs import define, field, frozen

from bench.audience import SPREAD
from bench.compare import Target
from bench.events import firehose
from bench.machine import ROOT, allow_files, describe
from bench.server import emulator, proxy
from pool.wire.codec import from_json, to_json

TOOL = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}
OUTPUT = "a line of what the tool has found, and another one\n" * 40  # 2 kB, of each tool call
SPARE_FILES = 200
FRONTS = {"http": "HTTP", "websocket": "WebSocket"}
AROUND = 8  # events of a response of the firehose beside its deltas
CORE = 1.0  # of a core, at most, for 500 streams at 20 events a second each
BEHIND = 1.0  # s, at most, that the last event comes late


@define(eq=False)
class Fronted:
    """A gateway that runs."""

    url: str
    process: subprocess.Popen[str]

    def read(self) -> dict[str, float]:
        """Return what it used since the last reading."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        read: dict[str, float] = json.loads(self.process.stdout.readline())
        return read


@contextmanager
def gateway(url: str, connections: int) -> Iterator[Fronted]:
    """Run a gateway to `url` while the block runs."""
    argv = [sys.executable, "-m", "bench.fronted", url, str(connections)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Fronted(process.stdout.readline().strip(), process)
        finally:
            process.stdin.close()


@define(eq=False)
class Client:
    """A client of the API that does as little as possible: one connection, one stream at a time."""

    url: str
    stream: trio.abc.Stream = field(init=False)
    first: float = field(default=0.0, init=False)  # s, from the request to the first event

    async def connect(self) -> None:
        """Open the connection."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.stream = await trio.open_tcp_stream(parts.hostname, parts.port)

    async def turn(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take a turn as a stream; return the response."""
        content = to_json({**body, "model": "gpt-6-astra", "stream": True})
        head = (
            f"POST {urlsplit(self.url).path}/responses HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer k\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        began = time.perf_counter()
        await self.stream.send_all(head.encode() + content)
        parts: list[bytes] = []
        last = b""
        self.first = 0.0
        while not last.endswith(b"0\r\n\r\n"):
            data = bytes(await self.stream.receive_some(65536))
            assert data, (last, b"".join(parts)[-500:])
            if not self.first and b"event: " in data:
                self.first = time.perf_counter() - began
            last = last[-8:] + data
            parts.append(data)
        return _ended(b"".join(parts))


def _ended(answer: bytes) -> dict[str, Any]:
    """Return the response at the end of a stream."""
    assert answer.startswith(b"HTTP/1.1 200"), answer[:300]
    body, rest = b"", answer.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    line = next(line for line in body.split(b"\n") if line.startswith(b'data: {"type":"response.completed"'))
    response: dict[str, Any] = from_json(line.removeprefix(b"data: "))["response"]
    return response


async def converse(url: str, name: str, turns: int, firsts: list[float]) -> None:
    """Walk one conversation, sending all of it each time."""
    client = Client(url)
    await client.connect()
    history: list[Any] = [{"role": "user", "content": f"{name} looks around"}]
    asked = {
        "store": False,
        "tools": [TOOL],
        "instructions": "Look around. " * 50,
        "metadata": {"emulator": f"calls={turns - 1} output_tokens=20"},
    }
    for _ in range(turns):
        done = await client.turn({**asked, "input": history})
        firsts.append(client.first)
        history += done["output"]
        history += [
            {"type": "function_call_output", "call_id": item["call_id"], "output": OUTPUT}
            for item in done["output"]
            if item["type"] == "function_call"
        ]
    await client.stream.aclose()


async def stateless(url: str, conversations: int, turns: int, at_once: int) -> list[float]:
    """Walk many conversations, so many at a time; return the times to the first event."""
    firsts: list[float] = []
    limit = trio.CapacityLimiter(at_once)
    began = time.perf_counter()

    async def one(number: int) -> None:
        async with limit:
            await converse(url, f"{began} {number}", turns, firsts)

    async with trio.open_nursery() as nursery:
        for number in range(conversations):
            nursery.start_soon(one, number)
    return firsts


def many(url: str, front: str, streams: int) -> dict[str, float]:
    """Hold so many streams open at once; return how many events came, and in what time."""
    argv = [sys.executable, "-m", "bench.audience", url, front, str(streams)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True)
    heard: dict[str, float] = json.loads(done.stdout)
    return heard


def compare(arguments: argparse.Namespace) -> None:
    """Print the first answer."""
    turns, conversations, at_once = arguments.turns, arguments.conversations, arguments.at_once
    firsts: dict[str, list[float]] = {"direct": [], "gateway": []}
    with (
        emulator("--latency", "base=0.02") as url,
        proxy(url) as straight,
        proxy(url) as behind,
        gateway(behind.url, 8) as fronted,
    ):
        trio.run(stateless, fronted.url, 4, 2, 4)  # the sockets are open now
        fronted.read()
        for _ in range(arguments.rounds):
            for name, base in (("direct", straight.url), ("gateway", fronted.url)):
                firsts[name] += trio.run(stateless, base, conversations, turns, at_once)
        used = fronted.read()
    count = arguments.rounds * conversations * turns
    direct, through = (statistics.median(firsts[name]) * 1000 for name in ("direct", "gateway"))
    print(f"\n{count} turns each, {turns} a conversation, whole history each time, {at_once} at once")
    print(f"  time to the first event  direct {direct:7.2f} ms   gateway {through:7.2f} ms")
    print(
        f"  bytes to the server      direct {straight.up / 1e6:7.2f} MB   gateway {behind.up / 1e6:7.2f} MB"
    )
    print(f"                           {straight.up / max(1, behind.up):.1f} times fewer")
    print(f"  CPU of the gateway       {used['cpu'] / count * 1000:.2f} ms a turn")


@frozen
class Carried:
    """Many streams through one front."""

    events: float
    seconds: float  # from the first request to the last event
    core: float  # that the gateway took: its share
    micros: float  # of the gateway's CPU, for an event
    late: dict[str, float]  # ms: the gateway's event loop


def carry(arguments: argparse.Namespace) -> None:
    """Print the second answer."""
    streams, rate, seconds = arguments.streams, arguments.rate, arguments.seconds
    fronts = list(FRONTS) if arguments.front == "both" else [arguments.front]
    rounds: dict[str, list[Carried]] = {front: [] for front in fronts}
    # The emulator thinks about each event, which would make it the slowest of the three.
    with (
        firehose(int(seconds * rate), rate) as url,
        gateway(url, -(-streams // 16) + 4) as fronted,
    ):
        for front in fronts:
            many(fronted.url, front, 16)
        for _ in range(arguments.rounds):
            for front, carried in rounds.items():
                carried.append(_carried(fronted, front, streams))
    # What is said before and after the deltas, and the second within which the clients come, go with it.
    offered = streams * (int(seconds * rate) + AROUND)
    due = seconds + AROUND / rate + SPREAD
    print(f"\n{streams} streams at once, {rate:g} events a second each, {arguments.rounds} rounds")
    for front, carried in rounds.items():
        for one in carried:
            assert one.events == offered, (one.events, offered)
            late = "   ".join(f"{name} {one.late[name]:.2f}" for name in ("p50", "p99", "max"))
            print(
                f"  {FRONTS[front]:9} {one.micros:5.1f} µs of CPU an event, {one.core:.0%} of a core; "
                f"its event loop is late by {late} ms; {one.seconds:.1f} s for {due:.1f}"
            )
    best = {front: min(carried, key=lambda one: one.micros) for front, carried in rounds.items()}
    if len(best) == 2:
        ratios = [socket.micros / http.micros for http, socket in zip(*rounds.values(), strict=True)]
        print(f"  an event over WebSocket costs {statistics.median(ratios):.2f} times one over HTTP")
    for front, one in best.items():
        print(Target(f"{FRONTS[front]}, of a core", one.core, CORE))
        print(Target(f"{FRONTS[front]}, time over what was due", one.seconds - due, BEHIND, unit=" s"))


def _carried(fronted: Fronted, front: str, streams: int) -> Carried:
    fronted.read()
    heard = many(fronted.url, front, streams)
    used = fronted.read()
    return Carried(
        events=heard["events"],
        seconds=heard["seconds"],
        core=used["cpu"] / heard["seconds"],
        micros=used["cpu"] / heard["events"] * 1e6,
        late={name: used[name] * 1000 for name in ("p50", "p99", "max")},
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m bench.gateway",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--conversations", type=int, default=32, help="a round (default 32)")
    parser.add_argument("--turns", type=int, default=20, help="of a conversation (default 20)")
    parser.add_argument("--at-once", type=int, default=8, help="conversations (default 8)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default 3)")
    parser.add_argument("--streams", type=int, default=500, help="at once (default 500)")
    parser.add_argument("--rate", type=float, default=20.0, help="events a second of each (default 20)")
    parser.add_argument(
        "--front",
        choices=[*FRONTS, "both"],
        default="both",
        help="that the streams go through (default both)",
    )
    parser.add_argument("--skip-turns", action="store_true", help="only the streams")
    parser.add_argument("--seconds", type=float, default=10.0, help="that each lasts (default 10)")
    arguments = parser.parse_args()
    allow_files(4 * arguments.streams + SPARE_FILES)
    print(describe())
    if not arguments.skip_turns:
        compare(arguments)
    carry(arguments)


if __name__ == "__main__":
    main()

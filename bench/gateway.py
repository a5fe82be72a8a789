"""What the gateway costs, and what it saves: `python -m bench.gateway --help`.

Emulator, gateway and clients are processes of their own. Two questions, each answered in one run:

1. Clients that keep no state walk through conversations with tools, their whole history in every request, straight to
   the emulator over HTTP and through the gateway, in turns. Compared are the time to the first event, the bytes that
   reach the server, and the gateway's CPU for a turn.
2. Many streams at once, each with so many events a second: how much of a core does the gateway take, and how late is
   its event loop?
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
from attrs import define, field

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
    events: int = field(default=0, init=False)
    first: float = field(default=0.0, init=False)  # s, from the request to the first event

    async def connect(self) -> None:
        """Open the connection."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.stream = await trio.open_tcp_stream(parts.hostname, parts.port)

    async def turn(self, body: dict[str, Any], *, whole: bool = True) -> dict[str, Any]:
        """Take a turn as a stream; return the response, or nothing where only its events are counted."""
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
            events = data.count(b"event: ")
            if events and not self.first:
                self.first = time.perf_counter() - began
            self.events += events
            last = last[-8:] + data
            if whole:
                parts.append(data)
        return _ended(b"".join(parts)) if whole else {}


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


async def many(url: str, streams: int) -> int:
    """Hold so many streams open at once; return how many events came."""
    clients = [Client(url) for _ in range(streams)]
    body = {"input": "go on", "store": False}

    async def one(client: Client, delay: float) -> None:
        await trio.sleep(delay)
        await client.connect()
        await client.turn(body, whole=False)
        await client.stream.aclose()

    async with trio.open_nursery() as nursery:
        for number, client in enumerate(clients):
            nursery.start_soon(one, client, number / streams)  # as clients do, not all in the same moment
    return sum(client.events for client in clients)


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


def carry(arguments: argparse.Namespace) -> None:
    """Print the second answer."""
    streams, rate = arguments.streams, arguments.rate
    # The emulator thinks about each event, which would make it the slowest of the three.
    with (
        firehose(int(arguments.seconds * rate), rate) as url,
        gateway(url, -(-streams // 16) + 4) as fronted,
    ):
        trio.run(many, fronted.url, 16)
        fronted.read()
        events = trio.run(many, fronted.url, streams)
        used = fronted.read()
    share, each = used["cpu"] / used["seconds"], used["cpu"] / events * 1e6
    late = {name: used[name] * 1000 for name in ("p50", "p99", "max")}
    print(
        f"\n{streams} streams at once, {rate:g} events a second each: {events} events in {used['seconds']:.1f} s"
    )
    print(f"  CPU of the gateway       {share:.0%} of a core, {each:.0f} microseconds for each event")
    print(
        f"  its event loop is late   p50 {late['p50']:.2f}   p99 {late['p99']:.2f}   max {late['max']:.1f} ms"
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
    parser.add_argument("--seconds", type=float, default=10.0, help="that each lasts (default 10)")
    arguments = parser.parse_args()
    allow_files(4 * arguments.streams + SPARE_FILES)
    print(describe())
    compare(arguments)
    carry(arguments)


if __name__ == "__main__":
    main()

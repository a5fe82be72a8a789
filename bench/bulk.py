"""What neighbours see of a big message: `python -m bench.bulk --help`.

One conversation replays a transcript of so many bytes over a socket, again and again, while a task looks at the clock
every millisecond. How late it ever is, is how long every stream of the process stands still. The same is done by a
bare loop, which hands the text to trio-websocket; its time to build that text is counted, as ours is.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import trio
from attrs import define, field
from trio_websocket import open_websocket_url

from bench.compare import Target, table
from bench.machine import describe
from bench.server import emulator
from pool.settings import Endpoint, PoolSettings
from scheduler.chain import Past, encode_input
from scheduler.scheduler import open_scheduler
from scheduler.turns import TurnRequest

SIZES = {"200 KB": 200_000, "2 MB": 2_000_000, "15 MB": 15_000_000}
MODEL = "gpt-6-astra"
ITEM = "x" * 1960  # with what is around it, 2 KB: a tool's output
STALL = 0.010  # s, at most
TICK = 0.001

Send = Callable[[], Awaitable[None]]


@define
class Watch:
    """How late the event loop was, in seconds, at its worst."""

    worst: float = field(init=False, default=0.0)

    async def look(self) -> None:
        """Look at the clock until cancelled."""
        while True:
            before = time.perf_counter()
            await trio.sleep(TICK)
            self.worst = max(self.worst, time.perf_counter() - before - TICK)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.bulk")
    parser.add_argument("--times", type=int, default=5, help="replays of each size (default 5)")
    arguments = parser.parse_args()
    print(describe())
    rows, worst = [], 0.0
    with emulator("--lanes", "single") as url:
        for title, size in SIZES.items():
            ours, theirs = trio.run(_measure, url, size, arguments.times)
            worst = max(worst, ours[0])
            rows.append([title, *(f"{stall * 1e3:.1f}, {cpu * 1e3:.0f}" for stall, cpu in (ours, theirs))])
    print("\nlongest stall of the event loop, ms, and CPU of a replay, ms\n")
    print(table(["transcript", "warmline", "bare loop"], rows))
    print(f"\n{Target('longest stall', worst * 1e3, STALL * 1e3, unit=' ms')}")


async def _measure(url: str, size: int, times: int) -> tuple[tuple[float, float], tuple[float, float]]:
    items = [{"type": "message", "role": "user", "content": ITEM} for _ in range(size // 2013)]
    async with _warmline(url, items) as send:
        ours = await _watched(send, times)
    async with _bare(url, items) as send:
        theirs = await _watched(send, times)
    return ours, theirs


async def _watched(send: Send, times: int) -> tuple[float, float]:
    await send()
    gc.collect()
    gc.freeze()  # our own transcripts are no garbage; a collection over them would be measured otherwise
    watch = Watch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.look)
        await trio.sleep(0.05)
        watch.worst, cpu = 0.0, time.process_time()
        for _ in range(times):
            await send()
        cpu = (time.process_time() - cpu) / times
        nursery.cancel_scope.cancel()
    gc.unfreeze()
    return watch.worst, cpu


@asynccontextmanager
async def _warmline(url: str, items: list[dict[str, str]]) -> AsyncIterator[Send]:
    request = TurnRequest(model=MODEL, options={"metadata": {"emulator": "output_tokens=5"}})
    past = Past(items=tuple(encode_input(items)))
    settings = PoolSettings(max_connections=1)
    async with open_scheduler(Endpoint.emulator(url), pool_settings=settings) as scheduler:

        async def send() -> None:
            conversation = scheduler.conversation(past=past)
            turn = await conversation.turn("go on", request)
            conversation.close()
            if not turn.placement.reason.startswith("replay:"):
                raise RuntimeError(f"not a replay on a socket: {turn.placement}")

        yield send


@asynccontextmanager
async def _bare(url: str, items: list[dict[str, str]]) -> AsyncIterator[Send]:
    kept = [msgspec.Raw(msgspec.json.encode(item)) for item in items]
    async with open_websocket_url("ws" + url.removeprefix("http") + "/responses") as socket:

        async def send() -> None:
            metadata = {"emulator": "output_tokens=5"}
            create = {
                "type": "response.create",
                "model": MODEL,
                "input": kept,
                "metadata": metadata,
                "store": False,
            }
            await socket.send_message(msgspec.json.encode(create).decode())
            while msgspec.json.decode(await socket.get_message())["type"] != "response.completed":
                pass

        yield send


if __name__ == "__main__":
    main()

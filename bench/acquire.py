"""What it costs to acquire and release a lane, however many connections there are: `python -m bench.acquire --help`.

The connections are silent stand-ins, so what is measured is the pool alone: its bookkeeping and its hand-over. Four
ways: a lane that nobody is hot on; the conversation's own lane; somebody else's, because every lane is somebody's
(the least loss is looked for); and waiting in line behind others while every lane is leased.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable, Sequence

import trio
import trio.testing
from attrs import define, field

from bench.compare import Target, table
from bench.machine import describe
from pool.dial import Use
from pool.pool import Pool, open_pool
from pool.settings import Endpoint, Lanes, PoolSettings
from pool.slots import Hold
from scheduler.policy import ByCost

TIMES = 2000
WAITERS = 50
MOST = 2.0  # times the cost at the fewest connections

Way = Callable[[Pool, int], Awaitable[float]]


@define(eq=False)
class Silent:
    """A connection on which nothing comes and nothing is sent."""

    bytes_in: int = field(default=0, init=False)
    bytes_out: int = field(default=0, init=False)

    @property
    def last_inbound(self) -> float:
        """Just now."""
        return trio.current_time()

    def listen(self, take: Callable[[str], None]) -> None:
        """Do nothing: nothing comes."""

    async def receive(self) -> str | bytes:
        """Wait for ever."""
        await trio.sleep_forever()
        raise AssertionError

    async def send(self, message: Sequence[bytes]) -> None:
        """Swallow it."""
        await trio.lowlevel.checkpoint()

    async def ping(self) -> bool:
        """Answer at once."""
        await trio.lowlevel.checkpoint()
        return True


async def dial(use: Use, _scope: trio.CancelScope) -> None:
    """Open one."""
    await use(Silent())


async def free(pool: Pool, _size: int) -> float:
    """Take lanes that nobody is hot on."""
    started = time.perf_counter()
    for _ in range(TIMES):
        (await pool.acquire()).release()
    return time.perf_counter() - started


async def own(pool: Pool, _size: int) -> float:
    """Come back to one's own lane."""
    hold = Hold("own")
    await _keep(pool, hold)
    started = time.perf_counter()
    for _ in range(TIMES):
        await _keep(pool, hold)
    return time.perf_counter() - started


async def robbing(pool: Pool, size: int) -> float:
    """Take lanes when all of them are somebody's."""
    holds = [Hold(f"holder {number}") for number in range(size)]
    for number, hold in enumerate(holds):
        await _keep(pool, hold)
        hold.worth, hold.gap = 1e-6 * (number % 7), 100.0 + number % 11  # worth it at once: no waiting
    strangers = [Hold(f"stranger {number}") for number in range(TIMES)]
    started = time.perf_counter()
    for hold in strangers:
        await _keep(pool, hold)
    return time.perf_counter() - started


async def in_line(pool: Pool, size: int) -> float:
    """Wait behind others while every lane is leased; each release serves the next."""
    leases = [await pool.acquire() for _ in range(size)]
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            for _ in range(TIMES // WAITERS):
                lease = await pool.acquire()
                await trio.lowlevel.checkpoint()
                lease.release()

        for _ in range(WAITERS):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        started = time.perf_counter()
        leases.pop().release()
    seconds = time.perf_counter() - started
    for lease in leases:
        lease.release()
    return seconds


async def _keep(pool: Pool, hold: Hold) -> None:
    """Take a turn that ends well: its lane remembers the conversation."""
    lease = await pool.acquire(hold)
    pool._apply(pool._roster.release(lease.lane, keep=True, fouled=False, now=trio.current_time()))
    lease.released = True


WAYS: dict[str, Way] = {
    "a free lane": free,
    "one's own": own,
    "somebody else's": robbing,
    "in line": in_line,
}


async def _measure(size: int, way: Way, lanes: Lanes) -> float:
    endpoint = Endpoint(name="silent", url="ws://silent/v1/responses", lanes=lanes)
    settings = PoolSettings(
        max_connections=size,
        min_idle=size * lanes.in_flight,
        dial_concurrency=size,
        dial_rate=1e6,
        dial_burst=size,
        max_waiters=10_000,
    )
    async with open_pool(endpoint, settings, dial=dial, placement=ByCost()) as pool:
        await trio.testing.wait_all_tasks_blocked(0.01)
        if pool.stats().open != size:
            raise RuntimeError(f"{pool!r}")
        return await way(pool, size * lanes.in_flight) / TIMES


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.acquire")
    parser.add_argument(
        "--connections",
        type=lambda text: [int(word) for word in text.split(",")],
        default=[10, 100, 1_000, 10_000],
        help="how many (default 10,100,1000,10000)",
    )
    parser.add_argument("--lanes", choices=["single", "multi"], default="single", help="default single")
    arguments = parser.parse_args()
    sizes: list[int] = arguments.connections
    lanes = Lanes.single() if arguments.lanes == "single" else Lanes.multi()
    print(describe())
    rows, worst = [], 0.0
    for title, way in WAYS.items():
        micros = [trio.run(_measure, size, way, lanes) * 1e6 for size in sizes]
        worst = max(worst, micros[-1] / micros[0])
        rows.append([title, *(f"{cost:.1f}" for cost in micros)])
    print(f"\nmicroseconds of an acquire and its release, {arguments.lanes}-lane connections\n")
    print(table(["", *(f"{size:,}" for size in sizes)], rows))
    print(f"\n{Target(f'at {sizes[-1]:,} / at {sizes[0]:,}, the worst', worst, MOST)}")


if __name__ == "__main__":
    main()

"""What open sockets cost when nothing happens on them: `python -m bench.idle --help`.

One process opens a pool of idle connections to an emulator in another process, then leaves them alone. Reported
are the CPU of a dial (TCP, upgrade, bookkeeping), the memory of an open socket with its reader, and the CPU of
keeping it alive.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from pathlib import Path

import trio

from bench.compare import Target
from bench.machine import allow_files, describe
from bench.server import emulator
from bench.tls import trust
from pool.pool import Pool, open_pool
from pool.settings import Endpoint, Lanes, PoolSettings

KEEPALIVE = 4.0  # seconds of silence before a ping; shorter than the default, to see many pings soon
MOST = 25.0  # kB a plain idle socket
PING = 6  # bytes of a ping frame: header 2, mask 4
SPARE_FILES = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.idle")
    parser.add_argument("--sockets", type=int, default=2000, help="how many (default 2000)")
    parser.add_argument("--watch", type=float, default=12.0, help="seconds to leave them alone (default 12)")
    parser.add_argument("--tls", action="store_true", help="encrypted")
    arguments = parser.parse_args()
    sockets: int = arguments.sockets
    allow_files(sockets + SPARE_FILES)
    print(describe())
    with trust() as trusted:
        options = trusted.options if arguments.tls else ()
        with emulator("--lanes", "single", *options) as url:
            trio.run(_measure, url, sockets, arguments.watch, trusted.ca if arguments.tls else None)


async def _measure(url: str, sockets: int, watch: float, ca_file: str | None) -> None:
    endpoint = Endpoint.emulator(url, lanes=Lanes.single())
    settings = PoolSettings(
        max_connections=sockets,
        min_idle=sockets,
        dial_concurrency=64,
        dial_rate=1e6,  # the emulator is ours: no pacing
        dial_burst=sockets,
        keepalive_interval=KEEPALIVE,
        ca_file=ca_file,
    )
    memory, cpu, started = _memory(), time.process_time(), trio.current_time()
    async with open_pool(endpoint, settings) as pool:
        await _opened(pool, sockets)
        cpu, seconds = time.process_time() - cpu, trio.current_time() - started
        print(f"\n{sockets} sockets open in {seconds:.1f} s, {sockets / seconds:.0f} a second")
        print(f"  CPU of a dial       {cpu / sockets * 1e6:8.0f} microseconds")
        kib = (_memory() - memory) / sockets / 1024
        print(f"  memory of a socket  {kib:8.1f} KiB")
        if ca_file is None:
            print(Target("memory of a socket", kib * 1.024, MOST, unit=" kB"))
        sent, cpu = pool.stats().bytes_sent, time.process_time()
        await trio.sleep(watch)
        cpu = time.process_time() - cpu
        stats = pool.stats()
        pings = (stats.bytes_sent - sent) / PING
        print(f"\nleft alone for {watch:g} s, with {pings:.0f} pings")
        if pings:
            default = PoolSettings().keepalive_interval
            print(
                f"  CPU of a ping       {cpu / pings * 1e6:8.0f} microseconds, its share of the timer included"
            )
            print(
                f"  CPU of {sockets} sockets {sockets * cpu / pings / default * 100:7.2f} % of one CPU, "
                f"pinged every {default:g} s as by default"
            )
        if stats.open != sockets or stats.lost or stats.dials_failed:
            sys.exit(
                f"not every socket lived: {pool!r}, lost={stats.lost}, dials_failed={stats.dials_failed}"
            )


async def _opened(pool: Pool, sockets: int) -> None:
    with trio.fail_after(600):
        while pool.stats().open < sockets:  # noqa: ASYNC110  # a pool tells nobody that it is warm
            await trio.sleep(0.25)


def _memory() -> int:
    """Return the bytes that are this process's own: its proportional set, or what comes nearest."""
    gc.collect()
    try:
        rollup = Path("/proc/self/smaps_rollup").read_text()
        return 1024 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    main()

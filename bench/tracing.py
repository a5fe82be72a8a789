"""What `--trace` costs a turn in CPU time: `python -m bench.tracing --help`.

The tool loop of `bench.turn` is played by three schedulers of one process in turns, lap by lap: not traced, traced,
and traced with contents. So a ratio compares laps that are a moment apart. The CPU is that of the whole process, the
thread that writes the trace included; each lap waits until it has written.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import trio
from attrs import evolve

from bench.compare import Spread, ratios, table
from bench.job import Job, Lap
from bench.machine import describe
from bench.peers.warmline import opened
from bench.server import emulator
from bench.turn import loop
from scheduler.trace import open_trace

WAYS = {"off": "not traced", "on": "traced", "contents": "traced with contents"}
WRITTEN = 0.4  # s, after which the writer has caught up
RUNS = 10


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.tracing")
    parser.add_argument("--laps", type=int, default=12, help="for each way (default 12)")
    parser.add_argument("--turns", type=int, default=10, help="turns in a loop (default 10)")
    arguments = parser.parse_args()
    print(describe())
    print(
        f"loop      {RUNS} at once, {arguments.turns} turns each, as in bench.turn; {arguments.laps} laps a way\n"
    )
    with emulator() as url, tempfile.TemporaryDirectory() as folder:
        job = evolve(loop(url, turns=arguments.turns), runs=RUNS)
        micros = trio.run(measure, job, arguments.laps, Path(folder))
        sizes = {path.name: path.stat().st_size for path in Path(folder).iterdir()}
    turns = RUNS * arguments.turns * (arguments.laps + 1)
    rows = [
        [
            title,
            f"{Spread(micros[way]):.0f}",
            f"{ratios(micros[way], micros['off']):.2f}",
            f"{sizes.get(way, 0) / turns / 1e3:.1f}",
        ]
        for way, title in WAYS.items()
    ]
    print(table(["", "CPU a turn, µs", "against not traced", "kB of trace a turn"], rows))


async def measure(job: Job, laps: int, folder: Path) -> dict[str, list[float]]:
    """Return the microseconds of a turn, lap by lap."""
    micros: dict[str, list[float]] = {way: [] for way in WAYS}
    async with contextlib.AsyncExitStack() as stack:
        plays = {}
        for way in WAYS:
            if way != "off":
                stack.enter_context(open_trace(folder / way, contents=way == "contents", limit=10**10))
            plays[way] = await stack.enter_async_context(opened(job))
        for lap in range(laps + 1):
            for way, play in plays.items():
                started = time.process_time()
                await play(job, Lap())
                await trio.sleep(WRITTEN)
                if lap:  # the first one warms up
                    taken = time.process_time() - started
                    micros[way].append(taken / (job.runs * job.turns) * 1e6)
    return micros


if __name__ == "__main__":
    main()

"""How many streamed events a second one core can take: `python -m bench.events --help`.

Ever more streams at once, each of 50 events a second, from a server that is faster than any client. A step is lost
when the event loop is late by more than 10 ms for one in a hundred looks at the clock. CPU for each event is that of
the process, over all that came; at low rates it is more, because every wake-up brings fewer events.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from bench.compare import Target, percentile, progress, table
from bench.environments import python
from bench.machine import ROOT, allow_files, describe
from bench.server import url_of
from bench.streams.job import StreamJob

READERS = {
    "warmline": ("warmline, on_events", None),
    "bare": ("bare loop, trio-websocket + msgspec", None),
    "sdk": ("openai SDK, WebSocket, one a stream", "openai"),
}
RATE = 50.0  # events a second of each stream
LATE = 0.010  # s
COST = 24.0  # microseconds an event, at most, where it is least
MOST = 1.2  # times what a bare loop takes for it: the same on any machine
SPARE_FILES = 200


@frozen
class Step:
    """One reader at one number of streams."""

    streams: int
    rate: float  # events a second, in fact
    micros: float
    lag: float  # s, the 99th percentile

    @property
    def kept_up(self) -> bool:
        """It was seldom late, and lost nothing of what was offered."""
        return self.lag <= LATE and self.rate >= 0.9 * self.streams * RATE


def main() -> None:
    """Measure, and print a table."""
    arguments = _arguments()
    allow_files(max(arguments.streams) + SPARE_FILES)
    print(describe())
    print(f"streams   {RATE:g} events a second each, {arguments.seconds:g} s")
    found: dict[str, list[Step]] = {reader: [] for reader in arguments.readers}
    with firehose(int(arguments.seconds * RATE)) as url:
        for streams in arguments.streams:
            for reader, steps in found.items():
                if steps and not steps[-1].kept_up:
                    continue
                progress(f"{reader}: {streams} streams")
                steps.append(_step(reader, StreamJob(url=url, streams=streams)))
    progress("")
    rows = []
    for reader, steps in found.items():
        kept = [step for step in steps if step.kept_up]
        most = f"{kept[-1].rate:.0f}" if kept else "none"
        if steps[-1].kept_up:
            most += " (the most tried)"
        cells = [f"{step.micros:.0f}, {step.lag * 1e3:.1f}" for step in steps]
        rows.append([READERS[reader][0], most, *cells, *["-"] * (len(arguments.streams) - len(cells))])
    header = ["", "events/s kept up", *(f"at {streams * RATE:.0f}/s" for streams in arguments.streams)]
    print("\nCPU of an event, µs, and p99 of the event loop's lag, ms\n")
    print(table(header, rows))
    cost = {
        reader: {step.streams: step.micros for step in steps if step.kept_up}
        for reader, steps in found.items()
    }
    ours, bare = cost.get("warmline", {}), cost.get("bare", {})
    if ours:
        print(f"\n{Target('CPU of an event', min(ours.values()), COST, unit=' µs')}")
    if both := ours.keys() & bare.keys():
        print(
            Target(
                f"the same / a bare loop's, at {max(both) * RATE:.0f}/s",
                ours[max(both)] / bare[max(both)],
                MOST,
            )
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.events")
    parser.add_argument(
        "--streams",
        type=lambda text: [int(word) for word in text.split(",")],
        default=[40, 100, 200, 300, 400, 600, 800],
        help="how many at once, step by step (default 40,100,200,300,400,600,800)",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each stream (default 5)")
    parser.add_argument(
        "--readers", type=lambda text: text.split(","), default=list(READERS), help=f"of {','.join(READERS)}"
    )
    return parser.parse_args()


@contextmanager
def firehose(deltas: int, rate: float = RATE) -> Iterator[str]:
    """Run the server while the block runs; give its base URL."""
    argv = [sys.executable, "-m", "bench.firehose", "--deltas", str(deltas), "--rate", f"{rate}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield url_of(process.stdout.readline())
        finally:
            process.terminate()


def _step(reader: str, job: StreamJob) -> Step:
    done = subprocess.run(
        [python(READERS[reader][1]), "-m", f"bench.streams.{reader}"],
        input=job.to_json(),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode:
        raise RuntimeError(f"{reader} failed:\n{done.stderr}")
    heard: dict[str, Any] = json.loads(done.stdout)
    return Step(
        streams=job.streams,
        rate=heard["events"] / heard["wall"],
        micros=heard["cpu"] / heard["events"] * 1e6,
        lag=percentile(sorted(heard["lags"]), 0.99),
    )


if __name__ == "__main__":
    main()

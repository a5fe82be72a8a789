"""What rotation and loss do to the turns: `python -m bench.disturbance --help`.

The same load three times, by turns: quiet; with every connection replaced every few seconds; and with one connection
cut each second, by a proxy. Tools take a while, as they do, so that there is a time between two turns.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack

from attrs import evolve

from bench.compare import Sample, Target, percentile, play, progress, table
from bench.machine import describe
from bench.server import emulator, proxy
from bench.turn import loop

LATENCY = "base=0.2,input=0.00002,output=0.002"
SCRIPT = "output_tokens=40"
DELTAS = 10
MODES = ("quiet", "rotating", "losing")
MOST = 1.1  # times the quiet p99, while rotating


def main() -> None:
    """Measure, and print a table."""
    arguments = _arguments()
    print(describe())
    print(
        f"loop      {arguments.runs} runs at once, {arguments.turns} turns each, tools take {arguments.tool:g} s; "
        f"{arguments.sockets} {arguments.lanes}-lane connections; server {LATENCY}"
    )
    samples: dict[str, list[Sample]] = {mode: [] for mode in MODES}
    with emulator("--lanes", arguments.lanes, "--latency", LATENCY) as url:
        job = evolve(
            loop(url, turns=arguments.turns, deltas=DELTAS),
            runs=arguments.runs,
            script=SCRIPT,
            sockets=arguments.sockets,
            lanes=arguments.lanes == "multi",
            tool_seconds=arguments.tool,
        )
        for repeat in range(arguments.repeat):
            for mode in MODES:
                progress(f"repeat {repeat + 1}/{arguments.repeat}: {mode}")
                with ExitStack() as stack:
                    cut = ["--cut", f"{arguments.cut}"] if mode == "losing" else []
                    proxied = stack.enter_context(proxy(url, *cut))
                    rotate = arguments.rotate if mode == "rotating" else None
                    samples[mode].append(play("warmline", evolve(job, url=proxied.url, rotate=rotate)))
    progress("")
    rows = []
    for mode, found in samples.items():
        turns = sorted(seconds for sample in found for seconds in sample.turns)
        notes = [lap.notes for sample in found for lap in sample.laps]
        rows.append(
            [
                mode,
                *(f"{percentile(turns, share):.3f}" for share in (0.5, 0.9, 0.99)),
                f"{turns[-1]:.3f}",
                f"{statistics.fmean(note['hot'] for note in notes):.1%}",
                f"{sum(note['rotated'] for note in notes):.0f}",
                f"{sum(note['lost'] for note in notes):.0f}",
            ]
        )
    print("\nseconds of a turn\n")
    print(table(["", "p50", "p90", "p99", "max", "hot", "rotated", "lost"], rows))
    p99 = [
        (percentile(moved.turns, 0.99) / percentile(quiet.turns, 0.99))
        for quiet, moved in zip(samples["quiet"], samples["rotating"], strict=True)
    ]
    print(f"\n{Target('p99 while rotating / quiet', statistics.median(p99), MOST)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.disturbance")
    parser.add_argument("--runs", type=int, default=60, help="at once (default 60)")
    parser.add_argument("--turns", type=int, default=20, help="of each run (default 20)")
    parser.add_argument("--tool", type=float, default=0.5, help="seconds that a tool takes (default 0.5)")
    parser.add_argument("--sockets", type=int, default=8, help="connections (default 8)")
    parser.add_argument("--lanes", choices=["single", "multi"], default="multi", help="default multi")
    parser.add_argument("--rotate", type=float, default=4.0, help="replace all every so many s (default 4)")
    parser.add_argument("--cut", type=float, default=1.0, help="cut one every so many seconds (default 1)")
    parser.add_argument("--repeat", type=int, default=3, help="of each (default 3)")
    return parser.parse_args()


if __name__ == "__main__":
    main()

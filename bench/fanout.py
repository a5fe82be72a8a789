"""Many runs over few sockets: throughput, waits and fairness. `python -m bench.fanout --help`.

All runs start at once and play the tool loop to its end. A turn's overhead is what it takes beyond the time of the
server's model: waiting for a lane, and the work of two processes that share this machine. Fairness is Jain's index
over the runs' durations: 1 when all take as long, 1/n when one has it all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from attrs import evolve

from bench.compare import PEERS, Sample, percentile, play, progress, table
from bench.job import Job
from bench.machine import allow_files, describe
from bench.server import emulator
from bench.turn import loop

BASE = 0.1  # s, of each turn
DELTAS = 10
OWN_SOCKETS = ("bare", "sdk_socket", "livekit")  # one for each run, at most
SPARE_FILES = 400


def main() -> None:
    """Measure, and print a table for single and one for multi-lane connections."""
    arguments = _arguments()
    allow_files(arguments.runs + SPARE_FILES)
    print(describe())
    print(f"loop      {arguments.runs} runs at once, {arguments.turns} turns each, {DELTAS} deltas a turn")
    print(f"server    {BASE:g} s a turn")
    for kind in arguments.lanes:
        with emulator("--lanes", kind, "--latency", f"base={BASE}") as url:
            job = evolve(
                loop(url, turns=arguments.turns, deltas=DELTAS), runs=arguments.runs, lanes=kind == "multi"
            )
            rows = []
            for sockets in arguments.sockets:
                progress(f"{kind}: warmline over {sockets}")
                rows.append(
                    _row(f"warmline, {sockets} sockets", job, play("warmline", evolve(job, sockets=sockets)))
                )
            for peer in arguments.peers:
                if kind == "single" and peer == "sdk_lanes":
                    continue
                progress(f"{kind}: {peer}")
                rows.append(_row(f"{PEERS[peer].title}", job, play(peer, job)))
        progress("")
        print(f"\n{kind}-lane connections\n")
        header = ["peer", "turns/s", "wait p50, ms", "p99", "overhead p50, ms", "p99", "fairness", "hot"]
        print(table(header, rows))


def _arguments() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.fanout")
    parser.add_argument("--runs", type=int, default=500, help="at once (default 500)")
    parser.add_argument("--turns", type=int, default=4, help="of each run (default 4)")
    parser.add_argument(
        "--sockets", type=numbers, default=[16, 64, 500], help="warmline's (default 16,64,500)"
    )
    parser.add_argument(
        "--lanes", type=lambda text: text.split(","), default=["single", "multi"], help="default single,multi"
    )
    parser.add_argument(
        "--peers",
        type=lambda text: [word for word in text.split(",") if word],
        default=[*OWN_SOCKETS, "sdk_lanes"],
        help="to compare with",
    )
    return parser.parse_args()


def _row(title: str, job: Job, sample: Sample) -> Sequence[str]:
    (lap,) = sample.laps
    over = [seconds - BASE for seconds in sample.turns]
    wait = [f"{lap.notes[name] * 1e3:.0f}" if name in lap.notes else "-" for name in ("wait_p50", "wait_p99")]
    hot = f"{lap.notes['hot']:.0%}" if "hot" in lap.notes else "-"
    return [
        title,
        f"{job.runs * job.turns / lap.wall:.0f}",
        *wait,
        f"{percentile(over, 0.5) * 1e3:.0f}",
        f"{percentile(over, 0.99) * 1e3:.0f}",
        f"{jain(sample.runs):.3f}",
        hot,
    ]


def jain(values: Sequence[float]) -> float:
    """Return Jain's index of fairness."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


if __name__ == "__main__":
    main()

"""What one turn of a tool loop costs the client in CPU time: `python -m bench.turn --help`.

The same loop (10 KB of instructions, 20 tools, 2 KB tool outputs, 40 delta events in each turn) is run by warmline
and by its peers (see `bench/peers`), each in a process of its own, against one emulator in yet another. The
processes are started by turns, again and again, so that a busy moment of the machine hits all of them alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence

from attrs import evolve, frozen

from bench.job import Job
from bench.machine import ROOT, describe
from bench.server import emulator
from bench.tools import TOOLS
from scheduler.tools import tool

PEERS = {
    "warmline": "warmline, all features on",
    "bare": "bare loop, trio-websocket + msgspec",
    "sdk_socket": "official SDK, WebSocket",
    "sdk_http": "official SDK, HTTP streaming",
}
FLOOR, MOST = "bare", 1.4  # warmline's CPU is at most so many times the floor's
LEAST = {"sdk_socket": 7.0, "sdk_http": 16.0}  # these cost at least so many times warmline's
TURNS_A_LAP = 160  # at least, so that a lap is long enough for the clock
DELTAS = 40
RULE = (
    "Rule {}: read before you write; change as little as the task allows; say what you did and why; "
    "when two sources disagree, name both and ask; never touch what the task does not concern.\n"
)
INSTRUCTIONS = "".join(map(RULE.format, range(1, 80)))[: 10 * 1024]


@frozen
class Sample:
    """CPU of one peer in one process: microseconds for each turn."""

    peer: str
    runs: int
    micros: float


def main() -> None:
    """Measure, and print a table for each number of concurrent runs."""
    arguments = _arguments()
    tools = [tool(function).definition for function in TOOLS.values()]
    print(describe())
    print(
        f"loop      {arguments.turns} turns, {len(INSTRUCTIONS)} B of instructions, {len(tools)} tools "
        f"({len(json.dumps(tools))} B), {DELTAS} deltas a turn, "
        f"{arguments.pace:g} s apart; {arguments.repeat} processes a peer, by turns"
    )
    samples: list[Sample] = []
    with emulator("--latency", f"output={arguments.pace:f}") as url:
        job = Job(
            url=url,
            runs=1,
            turns=arguments.turns,
            laps=arguments.laps,
            instructions=INSTRUCTIONS,
            tools=tools,
            deltas=DELTAS,
        )
        for repeat in range(arguments.repeat):
            for runs in arguments.runs:
                for peer in arguments.peers:
                    _progress(f"repeat {repeat + 1}/{arguments.repeat}: {peer}, {runs} at once")
                    samples.append(_sample(peer, evolve(job, runs=runs)))
    _progress("")
    for runs in arguments.runs:
        print("\n" + _table([sample for sample in samples if sample.runs == runs], runs, arguments.peers))


def _arguments() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    def peers(text: str) -> list[str]:
        unknown = set(text.split(",")) - PEERS.keys()
        if unknown:
            raise argparse.ArgumentTypeError(
                f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}"
            )
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench.turn")
    parser.add_argument("--runs", type=numbers, default=[1, 20], help="how many at once (default 1,20)")
    parser.add_argument("--turns", type=int, default=20, help="turns in a loop (default 20)")
    parser.add_argument(
        "--repeat", type=int, default=4, help="processes for each peer and number (default 4)"
    )
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two deltas (default 0)")
    parser.add_argument("--laps", type=int, default=0, help="measured laps in a process (default: enough)")
    parser.add_argument("--peers", type=peers, default=list(PEERS), help=f"of {','.join(PEERS)}")
    return parser.parse_args()


def _sample(peer: str, job: Job) -> Sample:
    a_lap = job.runs * job.turns
    laps = job.laps or -(-TURNS_A_LAP // a_lap)
    done = subprocess.run(
        [sys.executable, "-m", f"bench.peers.{peer}"],
        input=evolve(job, laps=laps).to_json(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    seconds: list[float] = json.loads(done.stdout)
    return Sample(peer, job.runs, sum(seconds) / (len(seconds) * a_lap) * 1e6)


def _table(samples: Sequence[Sample], runs: int, peers: Sequence[str]) -> str:
    of = {peer: [sample.micros for sample in samples if sample.peer == peer] for peer in peers}
    lines = [f"{runs} at once: client CPU per turn, median (least to most), microseconds"]
    for peer, micros in of.items():
        spread = f"{statistics.median(micros):8.0f}  ({min(micros):.0f} to {max(micros):.0f})"
        lines.append(f"  {PEERS[peer]:<38}{spread}")
    ours = of.get("warmline", [])
    if ours and FLOOR in of:
        ratios = [mine / floor for mine, floor in zip(ours, of[FLOOR], strict=True)]
        met = statistics.median(ratios) <= MOST
        lines.append(_verdict(f"warmline / {FLOOR}", ratios, f"at most {MOST:g}", met=met))
    for peer, least in LEAST.items():
        if ours and peer in of:
            ratios = [theirs / mine for theirs, mine in zip(of[peer], ours, strict=True)]
            met = statistics.median(ratios) >= least
            lines.append(_verdict(f"{peer} / warmline", ratios, f"at least {least:g}", met=met))
    return "\n".join(lines)


def _verdict(name: str, ratios: Sequence[float], target: str, *, met: bool) -> str:
    spread = f"{statistics.median(ratios):8.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"  {name:<38}{spread}  target {target}: {'met' if met else 'MISSED'}"


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

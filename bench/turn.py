"""What one turn of a tool loop costs the client: `python -m bench.turn --help`.

The same loop (10 KB of instructions, 20 tools, 2 KB tool outputs, 40 delta events in each turn) is run by warmline
and by its peers (see `bench/peers`), each in a process and an environment of its own, against one emulator in
another process. The processes are started by turns, again and again, so that a busy moment of the machine hits all
of them alike. Bytes are counted by a proxy, in a process more for each peer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from attrs import evolve

from bench.compare import PEERS, Sample, Spread, Target, play, progress, ratios, table, with_laps
from bench.job import WARM_TURNS, Job
from bench.machine import describe
from bench.server import emulator, proxy
from bench.tools import TOOLS
from scheduler.tools import tool

FLOOR, MOST = "bare", 1.2  # warmline's CPU is at most so many times the floor's
LEAST = {"sdk_socket": 9.0, "sdk_http": 20.0}  # these cost at least so many times warmline's
JUDGED = (0.0, 20, 20)  # pace, turns and runs that these are for
TURNS_A_SAMPLE = 160  # at least, so that a sample is long enough for the clock
DELTAS = 40
RULE = (
    "Rule {}: read before you write; change as little as the task allows; say what you did and why; "
    "when two sources disagree, name both and ask; never touch what the task does not concern.\n"
)
INSTRUCTIONS = "".join(map(RULE.format, range(1, 80)))[: 10 * 1024]


def loop(url: str, *, turns: int = 20, deltas: int = DELTAS) -> Job:
    """Return the tool loop that all benchmarks play."""
    tools = [tool(function).definition for function in TOOLS.values()]
    return Job(url=url, runs=1, turns=turns, laps=1, instructions=INSTRUCTIONS, tools=tools, deltas=deltas)


def main() -> None:
    """Measure, and print a table for each number of concurrent runs."""
    arguments = _arguments()
    print(describe())
    size = len(json.dumps(loop("").tools))
    print(
        f"loop      {arguments.turns} turns, {len(INSTRUCTIONS)} B of instructions, {len(TOOLS)} tools "
        f"({size} B), {DELTAS} deltas a turn, {arguments.pace:g} s apart; "
        f"{arguments.repeat} processes a peer, by turns"
    )
    samples: dict[int, list[Sample]] = {runs: [] for runs in arguments.runs}
    with emulator("--latency", f"output={arguments.pace:f}") as url:
        job = loop(url, turns=arguments.turns)
        sent = {peer: _bytes(peer, url, job) for peer in arguments.peers}
        for repeat in range(arguments.repeat):
            for runs in arguments.runs:
                for peer in arguments.peers:
                    progress(f"repeat {repeat + 1}/{arguments.repeat}: {peer}, {runs} at once")
                    told = evolve(job, runs=runs, laps=arguments.laps)
                    samples[runs].append(play(peer, told if told.laps else with_laps(told, TURNS_A_SAMPLE)))
    progress("")
    for runs, measured in samples.items():
        print(f"\n{runs} at once, {arguments.turns} turns each\n")
        judge = (arguments.pace, arguments.turns, runs) == JUDGED
        print("\n".join(_told(measured, arguments.peers, sent, judge=judge)))


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


def _bytes(peer: str, url: str, job: Job) -> tuple[float, float]:
    """Return the bytes of a turn, up and down, handshakes included."""
    with proxy(url) as proxied:
        sample = play(peer, evolve(job, url=proxied.url))
    turns = min(WARM_TURNS, job.turns) + sum(len(lap.turns) for lap in sample.laps)
    return proxied.up / turns, proxied.down / turns


def _told(
    samples: Sequence[Sample], peers: Sequence[str], sent: dict[str, tuple[float, float]], *, judge: bool
) -> list[str]:
    of = {peer: [sample for sample in samples if sample.peer == peer] for peer in peers}
    micros = {peer: [sample.micros for sample in found] for peer, found in of.items()}
    rows = []
    for peer in peers:
        against = f"{ratios(micros[peer], micros['warmline']):.2f}" if "warmline" in micros else "-"
        wall = Spread([sample.wall / max(1, len(sample.laps[0].turns)) * 1e3 for sample in of[peer]])
        up, down = sent[peer]
        rows.append(
            [
                PEERS[peer].title,
                f"{Spread(micros[peer]):.0f}",
                against,
                f"{wall:.2f}",
                f"{up / 1e3:.1f}",
                f"{down / 1e3:.1f}",
            ]
        )
    header = ["peer", "CPU a turn, µs", "against warmline", "wall a turn, ms", "kB up", "kB down"]
    lines = [table(header, rows), ""]
    ours = micros.get("warmline", [])
    if judge and ours:
        if FLOOR in of:
            got = ratios(ours, micros[FLOOR]).median
            lines.append(str(Target(f"warmline / {FLOOR}", got, MOST)))
        for peer, least in LEAST.items():
            if peer in of:
                got = ratios(micros[peer], ours).median
                lines.append(str(Target(f"{peer} / warmline", got, least, at_most=False)))
    return lines


if __name__ == "__main__":
    main()

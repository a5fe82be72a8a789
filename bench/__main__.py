"""All benchmarks, one after the other: `python -m bench` (short) or `python -m bench --full`.

Each is a program of its own, and can be run alone; what it prints is shown as it comes. With `--full` everything goes
into `bench/RESULTS.md`, under the command that made it; with `--only` too, in the place of what stood there. A missed
target is told, and is no failure: a busy machine can miss any.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from bench.machine import HEADER, ROOT, describe

RESULTS = ROOT / "bench" / "RESULTS.md"


@frozen
class Scenario:
    """A question, and the benchmark that answers it: quickly, and at length. None: not in the short suite."""

    title: str
    module: str
    short: Sequence[str] | None
    full: Sequence[str]

    @property
    def names(self) -> set[str]:
        """By which it can be chosen."""
        return {self.title, self.module}


SCENARIOS = (
    Scenario(
        "What a turn costs the client",
        "turn",
        ("--runs", "20", "--repeat", "2", "--peers", "warmline,bare,sdk_socket,sdk_http"),
        ("--runs", "1,20", "--repeat", "2"),
    ),
    Scenario("Streamed events", "events", ("--streams", "100,400", "--seconds", "3"), ()),
    Scenario("Idle sockets", "idle", ("--sockets", "1000", "--watch", "6"), ("--sockets", "10000")),
    Scenario("An acquire", "acquire", ("--connections", "10,1000"), ()),
    Scenario("Big messages", "bulk", (), ("--times", "20")),
    Scenario("Rotation and loss", "disturbance", ("--repeat", "1", "--turns", "10"), ("--repeat", "2")),
    Scenario("The gateway", "gateway", None, ()),
    Scenario("What recording costs", "recording", ("--laps", "4"), ()),
    Scenario(
        "A whole run, against HTTP",
        "journey",
        ("--rtt", "20", "--calls", "2,20", "--repeat", "1"),
        ("--repeat", "1"),
    ),
    Scenario(
        "The same, 200 at once",
        "turn",
        None,
        ("--runs", "200", "--repeat", "1", "--peers", "warmline,bare,livekit,sdk_socket"),
    ),
    Scenario("A task of two turns", "turn", None, ("--runs", "20", "--turns", "2", "--repeat", "2")),
    Scenario(
        "The same, from a server that takes its time",
        "turn",
        None,
        (
            "--runs",
            "1,20",
            "--pace",
            "0.002",
            "--repeat",
            "1",
            "--peers",
            "warmline,bare,sdk_socket,sdk_http",
        ),
    ),
    Scenario(
        "Many runs over few sockets",
        "fanout",
        ("--runs", "200", "--sockets", "16,64", "--lanes", "multi", "--peers", "livekit"),
        ("--peers", "bare,livekit,sdk_lanes"),
    ),
    Scenario("Fewer of them", "idle", None, ("--sockets", "2000")),
    Scenario("Idle sockets, TLS", "idle", None, ("--sockets", "2000", "--tls")),
    Scenario("More of them", "idle", None, ("--sockets", "10000", "--tls")),
    Scenario("An acquire, multi-lane", "acquire", None, ("--lanes", "multi", "--connections", "10,100,1000")),
    Scenario("Placement when lanes are scarce", "placement", None, ("--tokens", "50000")),
    Scenario("Lifetimes of seconds", "lifetimes", None, ()),
    Scenario("A storm", "storm", ("--runs", "40", "--turns", "10"), ()),
    Scenario("A million turns, simulated", "simulation", None, ()),
    Scenario("The queue", "worker", None, ()),
    Scenario("The gateway, attacked", "hostile", None, ()),
)


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m bench")
    parser.add_argument("--full", action="store_true", help="at length, and write bench/RESULTS.md")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="this module, or title; again: and that one"
    )
    parser.add_argument("--skip", metavar="NAME", action="append", default=[], help="all but this one")
    arguments = parser.parse_args()
    known = {name for scenario in SCENARIOS for name in scenario.names}
    if unknown := {*(arguments.only or ()), *arguments.skip} - known:
        parser.error(f"no such benchmark: {'; '.join(unknown)}; there are {'; '.join(sorted(known))}")
    machine = describe()
    print(machine)
    told = _told(RESULTS) if arguments.full and arguments.only else {}
    for scenario in SCENARIOS:
        options = scenario.full if arguments.full else scenario.short
        if options is None or scenario.names & set(arguments.skip):
            continue
        if arguments.only and not scenario.names & set(arguments.only):
            continue
        told[scenario.title] = _run(scenario, options, machine)
        if arguments.full:  # each time: what is there stays, if the next is interrupted
            _write(RESULTS, machine, told)


def _run(scenario: Scenario, options: Sequence[str], machine: str) -> str:
    command = " ".join(("python -m", f"bench.{scenario.module}", *options))
    print(f"\n== {scenario.title}: {command}\n", flush=True)
    started, lines = time.perf_counter(), list[str]()
    argv = [sys.executable, "-m", f"bench.{scenario.module}", *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith(HEADER):
                print(line, end="", flush=True)
                lines.append(line)
    if process.returncode:
        lines.append(f"\nended with status {process.returncode}\n")
    minutes = (time.perf_counter() - started) / 60
    said = "".join(lines).strip("\n")
    commit = next(line.split(None, 1)[1] for line in machine.splitlines() if line.startswith("commit"))
    return f"## {scenario.title}\n\n`{command}` ({minutes:.1f} min, commit {commit})\n\n{_marked(said)}\n"


def _marked(text: str) -> str:
    """Return what a benchmark printed as Markdown: its tables as they are, the rest line by line."""
    return "\n".join(line if not line or line.startswith("|") else f"{line}  " for line in text.splitlines())


def _told(path: Path) -> dict[str, str]:
    """Return the sections of the results that are there, by title."""
    if not path.exists():
        return {}
    sections = path.read_text().split("\n## ")[1:]
    return {section.splitlines()[0]: f"## {section.rstrip()}\n" for section in sections}


def _write(path: Path, machine: str, told: Mapping[str, str]) -> None:
    ordered = [told[scenario.title] for scenario in SCENARIOS if scenario.title in told]
    missing = [scenario.title for scenario in SCENARIOS if scenario.title not in told]
    targets = [line.strip() for text in ordered for line in text.splitlines() if line.startswith("target: ")]
    missed = [line for line in targets if line.endswith("MISSED")]
    path.write_text(
        "# Results\n\nMade by `make bench-full`. Method, peers and limits: "
        "[docs/benchmarks.md](../docs/benchmarks.md).\n\n"
        f"```\n{machine}\n```\n\n"
        + (f"Not there: {', '.join(missing)}.\n\n" if missing else "")
        + f"{len(targets) - len(missed)} of {len(targets)} targets met."
        + "".join(f"\n- {line.removeprefix('target: ')}" for line in missed)
        + "\n\n"
        + "\n".join(ordered)
    )


if __name__ == "__main__":
    main()

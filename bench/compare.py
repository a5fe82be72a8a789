"""Peers against each other: a process for each measurement, by turns, and ratios of neighbours in time.

A busy moment of the machine hits neighbours alike, so a ratio is taken within one round, and what is told is the
median of the rounds and their spread.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from attrs import evolve, frozen

from bench.environments import python
from bench.job import Job, Lap
from bench.machine import ROOT


@frozen
class Peer:
    """A way to run the loop. `environment` None is our own."""

    name: str
    title: str
    environment: str | None = None


PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("warmline", "warmline, all features on"),
        Peer("bare", "bare loop, trio-websocket + msgspec"),
        Peer("sdk_socket", "openai SDK, WebSocket, one a run", "openai"),
        Peer("sdk_lanes", "openai SDK, WebSocket session, lanes", "openai"),
        Peer("sdk_http", "openai SDK, HTTP streaming", "openai"),
        Peer("sdk_stored", "openai SDK, HTTP, stored responses", "openai"),
        Peer("agents", "openai-agents, WebSocket, one a run", "agents"),
        Peer("livekit", "livekit-agents' ConnectionPool", "livekit"),
    )
}


@frozen
class Sample:
    """The laps of one process."""

    peer: str
    laps: tuple[Lap, ...]

    @property
    def micros(self) -> float:
        """CPU for each turn, in microseconds."""
        return sum(lap.cpu for lap in self.laps) / sum(len(lap.turns) for lap in self.laps) * 1e6

    @property
    def wall(self) -> float:
        """Seconds of a lap, on average."""
        return statistics.fmean(lap.wall for lap in self.laps)

    @property
    def turns(self) -> list[float]:
        """Seconds of each turn, in order of length."""
        return sorted(seconds for lap in self.laps for seconds in lap.turns)

    @property
    def runs(self) -> list[float]:
        """Seconds of each run, in order of length."""
        return sorted(seconds for lap in self.laps for seconds in lap.runs)


def play_together(
    peer: str, jobs: Iterable[Job], *, environ: Mapping[str, str] | None = None
) -> list[Sample]:
    """Have one peer do several jobs at once, each in a process of its own: for jobs that mostly wait."""
    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(lambda job: play(peer, job, environ=environ), jobs))


def play(peer: str, job: Job, *, environ: Mapping[str, str] | None = None) -> Sample:
    """Have one peer do a job in a fresh process."""
    done = subprocess.run(
        [python(PEERS[peer].environment), "-m", f"bench.peers.{peer}"],
        input=job.to_json(),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=None if environ is None else dict(environ),
    )
    if done.returncode:
        raise RuntimeError(f"{peer} failed:\n{done.stderr}")
    return Sample(peer, tuple(Lap(**lap) for lap in json.loads(done.stdout)))


@frozen
class Spread:
    """Some figures, as the median and the ends."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def __format__(self, spec: str) -> str:
        least, most = min(self.values), max(self.values)
        return f"{self.median:{spec}} ({least:{spec}} to {most:{spec}})"


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Divide neighbours in time."""
    return Spread([a / b for a, b in zip(over, under, strict=True)])


@frozen
class Target:
    """Something to reach: `got` is to be at most, or at least, `limit`."""

    what: str
    got: float
    limit: float
    at_most: bool = True
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.got <= self.limit if self.at_most else self.got >= self.limit

    def __str__(self) -> str:
        bound = "at most" if self.at_most else "at least"
        verdict = "met" if self.met else "MISSED"
        return f"target: {self.what} {bound} {self.limit:g}{self.unit}: {self.got:.3g}{self.unit}, {verdict}"


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` of them lie."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table that can be read as it is; all columns but the first are flush right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = (
        "|"
        + "|".join(
            "-" * (width + 2 if not n else width + 1) + (":" if n else "") for n, width in enumerate(widths)
        )
        + "|"
    )
    return "\n".join((line(header), rule, *map(line, rows)))


def progress(text: str) -> None:
    """Say what goes on, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def with_laps(job: Job, least_turns: int) -> Job:
    """Return the job with laps enough for so many turns."""
    return evolve(job, laps=-(-least_turns // (job.runs * job.turns)))

"""The report of a fleet: one frozen value, shown as text of 80 columns or as one JSON object. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import asdict, field, frozen

from pool.printable import printable
from pool.stats import Summary
from scheduler.fleet.results import TaskResult
from scheduler.stats import SchedulerStats
from scheduler.turns import Usage

WHY = {  # at most 31 characters, for a line of 80
    "hot": "delta: its lane remembered it",
    "hydrated": "delta: the server had stored it",
    "replay:new": "whole: the first turn",
    "replay:lost": "whole: its connection was lost",
    "replay:stolen": "whole: its lane was taken",
    "replay:rotated": "whole: its connection rotated",
    "replay:idle": "whole: its connection idled out",
    "replay:failed": "whole: its lane was given up",
    "replay:closed": "whole: it had been closed",
    "replay:moved": "whole: its lane was busy",
    "replay:model": "whole: for its model's sake",
    "replay:rewritten": "whole: history was rewritten",
    "replay:resumed": "whole: it began with a history",
    "replay:forked": "whole: a fork, elsewhere",
    "replay:expired": "whole: its connection aged out",
    "replay:stalled": "whole: its connection stalled",
    "replay:abandoned": "whole: its lane was abandoned",
    "replay:resized": "whole: the pool had shrunk",
    "replay:downgraded": "whole: single lanes from now on",
    "replay:narrowed": "whole: fewer lanes from now on",
    "replay:forgotten": "whole: the server forgot it",
    "replay:http": "whole: HTTP remembers nothing",
    "replay:compacted": "whole: it had been compacted",
    "http:oversize": "HTTP: too big for a socket",
    "http:fallback": "HTTP: no socket could be opened",
    "http:short": "HTTP: not worth a dial",
    "http:setting": "HTTP: transport is http",
}


@frozen(kw_only=True)
class Runs:
    """What became of the tasks. `skipped` had been completed before; `not_started` were left for another time."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0

    @property
    def not_started(self) -> int:
        """Tasks that have no result, neither from now nor from before."""
        return max(0, self.total - self.completed - self.failed - self.cancelled - self.skipped)


@frozen(kw_only=True)
class Connections:
    """What the pool did with its connections."""

    opened: int = 0
    lost: int = 0
    rotated: int = 0


@frozen(kw_only=True)
class FleetReport:
    """What a fleet did. Times in seconds, sizes in bytes.

    `bytes_saved` and `tokens_saved` compare with sending every transcript whole on every turn. `error` says what
    ended the fleet early, `signal` which signal did. `results` is there when they were kept in memory.
    """

    runs: Runs
    seconds: float
    endpoint: str = ""
    turns: int = 0
    placements: Mapping[str, int] = field(factory=dict)
    retries: Mapping[str, int] = field(factory=dict)  # tries that had to be made again, by reason
    tools_executed: int = 0
    tools_failed: int = 0
    connections: Connections = field(factory=Connections)
    first_event: Summary = field(factory=Summary)
    turn: Summary = field(factory=Summary)
    bytes_sent: int = 0
    bytes_saved: int = 0
    tokens_saved: int = 0
    usage: Usage = field(factory=Usage)
    results_file: str | None = None
    error: str | None = None
    signal: int | None = None
    results: tuple[TaskResult, ...] = field(default=(), repr=False)
    stats: SchedulerStats | None = field(default=None, repr=False)  # everything that was counted

    @property
    def ok(self) -> bool:
        """Whether every task is completed, now or before."""
        return self.error is None and self.runs.completed + self.runs.skipped == self.runs.total

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            "runs": {**asdict(self.runs), "not_started": self.runs.not_started},
            "turns": self.turns,
            "placements": dict(self.placements),
            "retries": dict(self.retries),
            "tools": {"executed": self.tools_executed, "failed": self.tools_failed},
            "connections": asdict(self.connections),
            "seconds": round(self.seconds, 6),
            "first_event": _rounded(self.first_event),
            "turn": _rounded(self.turn),
            "bytes": {"sent": self.bytes_sent, "saved": self.bytes_saved},
            "tokens": {"saved": self.tokens_saved},
            "usage": asdict(self.usage),
            "endpoint": self.endpoint,
            "results": self.results_file,
            "error": self.error,
            "interrupted": self.signal is not None,
            "stats": None if self.stats is None else self.stats.to_json(),
        }

    def to_text(self) -> str:
        """Return the report as lines of at most 80 columns (but for a long file name)."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        failed = f", {count(self.runs.failed)} failed" if self.runs.failed else ""
        done = f"{count(self.runs.completed)} completed{failed}"
        yield f"{plural(self.runs.total, 'run')} on {printable(self.endpoint)} in {duration(self.seconds)}: {done}"
        yield ""
        if others := self._others():
            yield _row("other runs", others)
        rate = f", {self.turns / self.seconds:.1f} a second" if self.turns and self.seconds > 0 else ""
        errors = f", {count(self.tools_failed)} with an error for the model" if self.tools_failed else ""
        yield _row("turns", f"{count(self.turns)}{rate}")
        yield _row("tools", f"{plural(self.tools_executed, 'call')} executed{errors}")
        label = "placed"
        total = sum(self.placements.values())
        for reason, number in sorted(self.placements.items(), key=lambda pair: (-pair[1], pair[0])):
            share = f"{percent(number, total):>4}"
            yield _row(label, f"{count(number):>9} {share}  {reason:<17} {WHY.get(reason, '')}".rstrip())
            label = ""
        conns = self.connections
        yield _row("connections", f"{conns.opened} opened, {conns.lost} lost, {conns.rotated} rotated")
        label = "tried again"
        for reason, number in sorted(self.retries.items(), key=lambda pair: (-pair[1], pair[0])):
            yield _row(label, f"{count(number):>9}  {reason}")
            label = ""
        for name, summary in (("first event", self.first_event), ("turn", self.turn)):
            if summary.count:
                marks = {"p50": summary.p50, "p90": summary.p90, "p99": summary.p99, "max": summary.max}
                yield _row(
                    name, "  ".join(f"{mark} {duration(value):<8}" for mark, value in marks.items()).rstrip()
                )
        if self.turns:
            whole = self.bytes_sent + self.bytes_saved
            yield _row(
                "bytes",
                f"{size(self.bytes_sent)} sent instead of {size(whole)}: "
                f"{percent(self.bytes_saved, whole)} saved against resending all",
            )
            yield _row("tokens", f"{count(self.tokens_saved)} input tokens did not travel again")
            yield _row("usage", self._usage())
        if self.results_file:
            yield _row("results", self.results_file)

    def _others(self) -> str:
        runs = self.runs
        named = (
            (runs.cancelled, "cancelled"),
            (runs.skipped, "done before"),
            (runs.not_started, "not started"),
        )
        return ", ".join(f"{count(number)} {words}" for number, words in named if number)

    def _usage(self) -> str:
        usage = self.usage
        cached = (
            f" ({percent(usage.cached_tokens, usage.input_tokens)} cached)" if usage.cached_tokens else ""
        )
        return f"{count(usage.input_tokens)} tokens in{cached}, {count(usage.output_tokens)} out"


def _row(label: str, text: str) -> str:
    return f"  {label:<12} {printable(text)}"


def _rounded(summary: Summary) -> dict[str, Any]:
    return {name: round(value, 6) for name, value in asdict(summary).items()}


def count(number: int) -> str:
    """Return a number with thin groups: 1 234 567 as 1,234,567."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """Return e.g. `1 run`, `2 runs`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """Return a share; what is neither nothing nor all is shown as neither."""
    if not whole:
        return "0%"
    share = 100 * part / whole
    if 0 < part < whole:
        share = min(99.0, max(1.0, share))
    return f"{share:.0f}%"


def duration(seconds: float) -> str:
    """Return a time to read: 43 ms, 1.24 s, 3:05 min, 2:07:09 h."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0095 or not seconds else f"{seconds * 1000:.1f} ms"
    if seconds < 99.5:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02} h" if hours else f"{minutes}:{left:02} min"


def size(number: int) -> str:
    """Return bytes to read: 512 B, 3.1 kB, 24.6 MB."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"

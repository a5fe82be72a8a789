"""How jobs look: as lines for a terminal or a pipe, and as JSON. Pure, but for asking how wide the terminal is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import asdict, define, frozen

from pool.printable import printable
from pool.wire.codec import from_json
from scheduler.outcome import text_of
from scheduler.worker.queue import Counts, Record, State, WorkerInfo

ID_WIDTH, AGENT_WIDTH = 24, 12


def counts_line(counts: Counts, workers: Sequence[WorkerInfo]) -> str:
    """Say how many jobs are where, and who works."""
    parts = [f"{counts.due} due", f"{counts.later} later", f"{counts.running} running"]
    parts += [f"{counts.done} done", f"{counts.dead} dead"]
    if counts.due:
        parts.append(f"oldest waits {span(counts.oldest)}")
    noun = "worker" if len(workers) == 1 else "workers"
    return f"{', '.join(parts)}; {len(workers)} {noun}"


def span(seconds: float) -> str:
    """Say a time span in its largest fitting unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@frozen
class Table:
    """The list. `width` None: no line is cut, as in a pipe."""

    width: int | None

    @classmethod
    def for_stdout(cls) -> Table:
        """Cut lines to the terminal, if it is one."""
        return cls(shutil.get_terminal_size().columns if sys.stdout.isatty() else None)

    def head(self) -> str:
        """Return the heading."""
        return self._line("ID", "STATE", "AGENT", "STEPS", "TAKES", "NOTE")

    def row(self, record: Record) -> str:
        """Return a job's line."""
        return self._line(
            record.job.id,
            record.state.value,
            record.job.agent or "-",
            str(record.steps),
            str(record.takes),
            _note(record),
        )

    def _line(self, id: str, state: str, agent: str, steps: str, takes: str, note: str) -> str:  # noqa: A002
        id, agent, note = printable(id), printable(agent), printable(note)  # noqa: A001
        if self.width is not None:
            id, agent = _cut(id, ID_WIDTH), _cut(agent, AGENT_WIDTH)  # noqa: A001
        columns = (
            id.ljust(ID_WIDTH),
            state.ljust(7),
            agent.ljust(AGENT_WIDTH),
            steps.rjust(5),
            takes.rjust(5),
        )
        line = f"{' '.join(columns)}  {note}".rstrip()
        return line if self.width is None else _cut(line, self.width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


def _note(record: Record) -> str:
    if record.state is State.DEAD and record.cause is not None:
        return f"{record.cause.type}: {record.cause.message}"
    if record.state is State.RUNNING:
        return f"at {record.worker}"
    if record.state is State.QUEUED and record.cause is not None:
        return f"strike {record.strikes} of {record.job.attempts}: {record.cause.type}"
    if record.state is State.QUEUED and record.due_at > record.enqueued_at:
        return f"not before {_time(record.due_at)}"
    return ""


def _time(at: float | None) -> str:
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def details(record: Record) -> str:
    """Return all about one job, for a person."""
    job = record.job
    rows = [("id", job.id), ("state", record.state.value), ("agent", job.agent or "- (the worker's first)")]
    rows += [
        (name, str(value))
        for name, value in (
            ("tenant", job.tenant),
            ("conversation", job.conversation),
            ("deadline", job.deadline),
        )
        if value is not None
    ]
    rows += [
        ("priority", f"{job.priority:g}"),
        ("enqueued", _time(record.enqueued_at)),
        ("due", _time(record.due_at)),
        ("started", _time(record.started_at)),
        ("ended", _time(record.ended_at)),
        ("steps", str(record.steps)),
        ("takes", f"{record.takes} ({record.strikes} of {job.attempts} strikes)"),
        ("worker", record.worker or "-"),
    ]
    if record.cause is not None:
        code = f" [{record.cause.code}]" if record.cause.code else ""
        rows.append(("cause", f"{record.cause.type}{code}: {record.cause.message}"))
    rows.append(("input", _one_line(job.input)))
    if record.result is not None:
        rows.append(("output", _one_line(from_json(record.result).get("output"))))
    return "\n".join(f"{name + ':':<14}{printable(value)}" for name, value in rows)


def _one_line(value: Any) -> str:
    return printable(" ".join(str(value).split()), 400)


def record_json(record: Record) -> dict[str, Any]:
    """Return a job as JSON; without the result."""
    return {
        **from_json(record.job.to_json()),
        "state": record.state.value,
        "enqueued_at": record.enqueued_at,
        "due_at": record.due_at,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "takes": record.takes,
        "strikes": record.strikes,
        "steps": record.steps,
        "worker": record.worker,
        "cause": None if record.cause is None else asdict(record.cause),
    }


@define
class Following:
    """What is shown of a job while it goes on: each step, and what is said of the turn under way."""

    said: str = ""  # of the turn under way
    shown: str = ""  # the last finished turn's text

    def draft(self, text: str) -> str:
        """Return what to write now that the turn has come so far."""
        said, self.said = self.said, text
        return text[len(said) :] if text.startswith(said) else f"\n(once more)\n{text}"

    def step(self, step: Mapping[str, Any]) -> str:
        """Return what to write for a finished step."""
        if step["step"] != "turn":
            return "".join(f"{line}\n" for line in step_lines(step))
        self.shown = text_of(step["output"])
        begun = bool(self.said)
        rest, self.said = self.draft(self.shown) if begun or self.shown else "", ""
        return (f"{rest}\n" if rest or begun else "") + "".join(f"{line}\n" for line in step_lines(step))


def step_lines(step: Mapping[str, Any]) -> Iterator[str]:
    """Say a step in lines: what the model called, and what came of that."""
    match step["step"]:
        case "turn":
            for item in step["output"]:
                if item.get("type") == "function_call":
                    yield _cut(f"> {printable(item['name'])}({_one_line(item.get('arguments', ''))})", 200)
        case "results":
            for result in step["results"]:
                mark = "!" if result["failed"] else "<"
                yield f"{mark} {_cut(_one_line(result['output']), 198)}"
        case "begun":
            yield f". call {printable(step['call_id'])} begins, and must not run twice"
        case "allowed":
            yield ". a person has allowed the call again"

"""What came of one task, and the line of JSON that says so."""

from __future__ import annotations

from typing import Any, Literal

from attrs import asdict, field, frozen

from pool.wire.codec import from_json, to_json
from scheduler.run import Run, RunResult
from scheduler.tools.schema import encode_text
from scheduler.turns import Placement, Usage

Outcome = Literal["completed", "failed", "cancelled"]
OUTCOMES = ("completed", "failed", "cancelled")


@frozen(kw_only=True)
class RunError:
    """Why a run failed: the exception's class, what it says, and the service's own code for it, if any."""

    type: str
    message: str
    code: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> RunError:
        """Describe an exception."""
        code = getattr(error, "code", None)
        return cls(
            type=type(error).__name__,
            message=str(error) or "no message",
            code=str(code) if code is not None else None,
        )


@frozen(kw_only=True)
class TaskResult:
    """What came of one task.

    `output` is the agent's answer: text, or the structured value it was asked for. `placements`, `first_event`
    and `turn_seconds` hold one entry for each finished turn, in order. All times are in seconds. Of a run that
    failed or was cancelled, everything but `output` tells how far it came.
    """

    id: str
    outcome: Outcome
    output: Any = None
    text: str = ""
    refusal: str | None = None  # the model's, when it answered with one
    usage: Usage = field(factory=Usage)
    turns: int = 0
    tools_executed: int = 0
    tools_failed: int = 0  # calls of which the model read an error
    placements: tuple[Placement, ...] = ()
    first_event: tuple[float, ...] = ()
    turn_seconds: tuple[float, ...] = ()
    seconds: float = 0.0
    error: RunError | None = None

    @classmethod
    def finished(cls, id: str, run: RunResult) -> TaskResult:  # noqa: A002 - the name of the field
        """Describe a run that ended with an answer."""
        return cls(
            id=id,
            outcome="completed",
            output=run.output,
            text=run.text,
            refusal=run.refusal,
            usage=run.usage,
            turns=run.turns,
            tools_executed=run.tools_executed,
            tools_failed=run.tools_failed,
            placements=run.placements,
            first_event=tuple(first for first, _ in run.timings),
            turn_seconds=tuple(whole for _, whole in run.timings),
            seconds=run.seconds,
        )

    @classmethod
    def unfinished(cls, id: str, run: Run, error: Exception | None) -> TaskResult:  # noqa: A002
        """Describe how far a run came that failed, or was cancelled (`error` None)."""
        return cls(
            id=id,
            outcome="failed" if error else "cancelled",
            text=run.text,
            usage=run.usage,
            turns=run.turns,
            tools_executed=run.tools_executed,
            tools_failed=run.tools_failed,
            placements=tuple(run.placements),
            first_event=tuple(first for first, _ in run.timings),
            turn_seconds=tuple(whole for _, whole in run.timings),
            seconds=run.seconds,
            error=RunError.of(error) if error else None,
        )

    def to_line(self) -> bytes:
        """Return the result as one line of JSON, with its line break."""
        values = {
            "id": self.id,
            "outcome": self.outcome,
            "output": self._output(),
            "usage": asdict(self.usage),
            "turns": self.turns,
            "tools_executed": self.tools_executed,
            "tools_failed": self.tools_failed,
            "placements": [placement.reason for placement in self.placements],
            "timings": {"first_event": _rounded(self.first_event), "turn": _rounded(self.turn_seconds)},
            "seconds": round(self.seconds, 6),
            "error": asdict(self.error) if self.error else None,
        }
        if self.refusal is not None:
            values["refusal"] = self.refusal
        return to_json(values) + b"\n"

    def _output(self) -> Any:
        if self.output is None or isinstance(self.output, str):
            return self.output
        try:
            return from_json(encode_text(self.output))
        except (TypeError, ValueError):  # a type without a JSON form: the model's own text says the same
            return self.text


def _rounded(seconds: tuple[float, ...]) -> list[float]:
    return [round(value, 6) for value in seconds]


def read_line(line: bytes) -> tuple[str, Outcome]:
    """Return the id and the outcome that a line of results holds.

    Raises:
        ValueError: the line is no result.
    """
    value = from_json(line)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    id_, outcome = value.get("id"), value.get("outcome")
    if not isinstance(id_, str) or outcome not in OUTCOMES:
        raise ValueError(f"no 'id', or no 'outcome' of {', '.join(OUTCOMES)}")
    return id_, outcome

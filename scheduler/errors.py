"""Every error of the scheduler, on one screen: few, flat, each named for the caller's next move.

What goes wrong on the wire keeps its name from `pool.errors`: it passes through unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pool.errors import shown

if TYPE_CHECKING:
    from scheduler.fleet.results import TaskResult


class SchedulerError(Exception):
    """Base of everything this package raises on purpose. Its message may hold a server's words, made safe to show."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shown(message))


class ConversationBusy(SchedulerError):
    """A conversation takes one turn at a time: await the one under way, or fork the conversation."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"a turn of conversation {name!r} is under way; await it, or use conversation.fork()"
        )


class InputInvalid(SchedulerError, ValueError):
    """What was to be said has no JSON form, so nothing was sent. `where` names the part at fault."""

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        self.where, self.problem, self.remedy = where, problem, remedy
        super().__init__(f"{where}: {problem}; {remedy}")

    @classmethod
    def of(cls, where: str, error: Exception) -> InputInvalid:
        """Return the error for what the encoder said."""
        if isinstance(error, UnicodeEncodeError):
            half = error.object[error.start]
            problem = f"character {error.start} of a text is half a surrogate pair (U+{ord(half):04X})"
            return cls(where, problem, 'mend the text: text.encode("utf-8", "replace").decode()')
        return cls(where, f"cannot be written as JSON ({error})", "give texts, numbers, lists and mappings")


class SteerRefused(SchedulerError):
    """Input for a running turn was not taken: say it in the next turn. Nothing has changed.

    `code` is the protocol's: response_not_active, response_already_completed, steering_not_supported, invalid_input,
    too_many_pending_steers ...
    """

    def __init__(self, code: str | None, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(f"{code or 'refused'}: {message}; say it in the next turn")


class CallsUnanswered(SchedulerError):
    """A conversation whose model waits for tool outputs cannot be compacted: take the turn that gives them first."""

    def __init__(self, name: str, call_ids: Sequence[str]) -> None:
        self.name, self.call_ids = name, tuple(call_ids)
        waiting = ", ".join(self.call_ids)
        super().__init__(f"conversation {name!r} has calls without outputs ({waiting}); give them first")


class RetryBudgetExceeded(SchedulerError):
    """Recovery has sent too much again: something is wrong that more tries do not mend. Or raise `replay_budget`.

    `wait` is how long the next try would have to wait, in seconds; `limit` is in tokens a minute. The error that
    the turn could not recover from is the `__cause__`.
    """

    def __init__(self, *, wait: float, limit: float) -> None:
        self.wait, self.limit = wait, limit
        super().__init__(
            f"replay_budget of {limit:,.0f} tokens a minute is used up: the next try is {wait:.0f} s away"
        )


class ToolDefinitionError(SchedulerError, TypeError):
    """A tool cannot be offered to a model as it is written. Raised when it is defined, never during a run.

    `tool` names the function, `parameter` the parameter at fault (None when it is the whole).
    """

    def __init__(self, tool: str, problem: str, remedy: str, *, parameter: str | None = None) -> None:
        self.tool, self.parameter, self.problem, self.remedy = tool, parameter, problem, remedy
        where = f"tool {tool!r}, parameter {parameter!r}" if parameter else f"tool {tool!r}"
        super().__init__(f"{where}: {problem}; {remedy}")


class BudgetExceeded(SchedulerError):
    """A run has used up what it was given and stopped before its next turn.

    `which` is the budget's name on the agent (`max_turns`, `max_tokens`): raise it there, or split the task.
    """

    def __init__(self, which: str, used: int, limit: int) -> None:
        self.which, self.used, self.limit = which, used, limit
        super().__init__(f"{which}: used {used} of {limit}, and the agent has not finished")


class OutputInvalid(SchedulerError):
    """The model's final answer does not fit what was asked for (`output_type`), also after asking again.

    `text` is its last answer; `attempts` counts the answers that were tried.
    """

    def __init__(self, problem: str, *, text: str, attempts: int) -> None:
        self.problem, self.text, self.attempts = problem, text, attempts
        super().__init__(f"no valid answer in {attempts} attempts: {problem}")


class RunIncomplete(SchedulerError):
    """The server cut a turn short, so the run has no answer. `text` is what there is of one.

    `reason` is the server's: `max_output_tokens` (raise it in the agent's options), `content_filter` ...
    """

    def __init__(self, reason: str, *, text: str) -> None:
        self.reason, self.text = reason, text
        super().__init__(f"the turn ended incomplete: {reason}")


class UnsupportedOutput(SchedulerError):
    """The model's turn waits for what no tool of the agent can give: an approval, a custom tool's output ...

    `kind` is the type of the output item.
    """

    def __init__(self, kind: str, remedy: str) -> None:
        self.kind, self.remedy = kind, remedy
        super().__init__(f"the model's turn ended with {kind!r}: {remedy}")


class AgentNotFound(SchedulerError):
    """What `--agent` names cannot be loaded. `spec` is what was given."""

    def __init__(self, spec: str, problem: str) -> None:
        self.spec, self.problem = spec, problem
        super().__init__(f"agent {spec!r}: {problem}")


class TaskError(SchedulerError, ValueError):
    """A task cannot be used. `source` and `line` say where it stands (line None: the file as a whole)."""

    def __init__(self, problem: str, *, source: str, line: int | None = None) -> None:
        self.problem, self.source, self.line = problem, source, line
        super().__init__(f"{source}: {problem}" if line is None else f"{source}:{line}: {problem}")


class OutputFileError(SchedulerError):
    """Results cannot be written to `path`, or what stands there must not be touched as asked."""

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{path}: {problem}")


class FleetHalted(SchedulerError):
    """The fleet stopped early, because the endpoint fails in a way that no other run would escape.

    The error of the endpoint is the `__cause__`. What was done is kept; the tasks that met it were not recorded.
    `results` are those that neither a file nor a function has taken: see `run_fleet`.
    """

    results: tuple[TaskResult, ...] = ()


class AdmissionQueueFull(SchedulerError):
    """Too many runs or turns wait for a slot: shed load, start fewer at once, or raise `max_queued`.

    `what` is "run" or "turn"; `waiting` counts all tenants' against the `limit`.
    """

    def __init__(self, what: str, *, tenant: str, waiting: int, limit: int, state: str) -> None:
        self.what, self.tenant, self.waiting, self.limit = what, tenant, waiting, limit
        super().__init__(f"tenant {tenant!r}: {waiting} {what}s wait for a slot, limit {limit} ({state})")


class DeadlineExceeded(SchedulerError):
    """A run was not finished by its deadline, or could not be: give it longer, or take it off the queue.

    `stage` says where it ended: "refused" (what it waits for comes after the deadline: `needed` seconds), "queued"
    (for a slot) or "running". `allowed` and `elapsed` are seconds from its start; `turns` had been completed.
    """

    def __init__(
        self,
        stage: Literal["refused", "queued", "running"],
        *,
        tenant: str,
        allowed: float,
        elapsed: float,
        turns: int,
        needed: float | None = None,
    ) -> None:
        self.stage, self.tenant, self.allowed, self.elapsed = stage, tenant, allowed, elapsed
        self.turns, self.needed = turns, needed
        why = "" if needed is None else f"; its next turn cannot start before {needed:.1f} s"
        super().__init__(
            f"deadline of {allowed:g} s (tenant {tenant!r}): {stage} after {elapsed:.1f} s and {turns} turns{why}"
        )

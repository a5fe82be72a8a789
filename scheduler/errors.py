"""Every error of the scheduler, on one screen: few, flat, each named for the caller's next move.

What goes wrong on the wire keeps its name from `pool.errors`: it passes through unchanged.
"""

from __future__ import annotations


class SchedulerError(Exception):
    """Base of everything this package raises on purpose."""


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


class UnsupportedOutput(SchedulerError):
    """The model's turn waits for what no tool of the agent can give: an approval, a custom tool's output ...

    `kind` is the type of the output item.
    """

    def __init__(self, kind: str, remedy: str) -> None:
        self.kind, self.remedy = kind, remedy
        super().__init__(f"the model's turn ended with {kind!r}: {remedy}")

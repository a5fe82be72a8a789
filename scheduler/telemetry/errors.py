"""What goes wrong with the outlets of statistics."""

from __future__ import annotations

from scheduler.errors import SchedulerError


class TelemetryError(SchedulerError):
    """Numbers cannot go where they were asked to go; the message says what to do."""


class HlogError(TelemetryError, ValueError):
    """A file is no histogram log that can be used. `line` counts from 1; None: it is about the whole file."""

    def __init__(self, path: str, problem: str, *, line: int | None = None) -> None:
        where = path if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {problem}")
        self.path = path
        self.line = line

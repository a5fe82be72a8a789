"""Turn whatever ended a command into one line on stderr and an exit status."""

from __future__ import annotations

import os
import sys

import click

from pool.errors import DialFailed, PoolError, SettingsError
from scheduler.commands.output import write, write_traceback
from scheduler.errors import AgentNotFound, FleetHalted, OutputFileError, SchedulerError, TaskError
from scheduler.fleet.verdict import principal
from scheduler.telemetry.errors import TelemetryError
from scheduler.worker.errors import QueueRefused

USAGE = 2
FAILED = 1
INTERRUPTED = 130


def explain(error: BaseException, *, debug: bool, usage: int = USAGE) -> int:
    """Show what `error` means and return the exit status. With `debug` the traceback comes first.

    `usage` is the status for what the user can mend in files and options.
    """
    cause = principal(error)
    if isinstance(cause, SystemExit):
        return cause.code if isinstance(cause.code, int) else FAILED
    if isinstance(cause, BrokenPipeError):
        # The reader of our stdout has gone, as in `| head`. Nothing more must be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED  # as click does when it notices first
    if isinstance(cause, KeyboardInterrupt | click.Abort):
        write("warmline: interrupted", err=True)
        return INTERRUPTED
    if debug:
        write_traceback(error)
    write(f"warmline: error: {describe(cause)}", err=True)
    mended = AgentNotFound | TaskError | SettingsError | OutputFileError | TelemetryError | QueueRefused
    return usage if isinstance(cause, mended) else FAILED


def describe(cause: BaseException) -> str:
    """Return one line for a person."""
    said = " ".join(str(cause).split())
    if isinstance(cause, FleetHalted):
        return f"{said}; the fleet was stopped, --resume goes on once that is mended"
    if isinstance(cause, DialFailed) and cause.status is None and not cause.hopeless:
        return f"{said}; check the URL, the network and that the server is up"
    if isinstance(cause, PoolError | SchedulerError):
        return said
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.filename}: {cause.strerror}" if cause.filename else cause.strerror
    return f"{type(cause).__name__}: {said} (this is a bug in warmline; --debug shows the traceback)"

"""Check everything that `warmline run` was given before anything runs, run it, and say how it went."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal

import trio
from attrs import evolve

from pool.wire.codec import to_json
from scheduler.admission.tenant import check_name
from scheduler.agent import Agent
from scheduler.commands.display import open_display
from scheduler.commands.drive import Flight, drive, nothing_to_do
from scheduler.commands.embedded import EmbeddedSettings
from scheduler.commands.endpoints import EndpointChoice
from scheduler.commands.failures import FAILED, explain
from scheduler.commands.loading import load_agent
from scheduler.commands.notices import logging_to
from scheduler.commands.output import write
from scheduler.errors import OutputFileError
from scheduler.fleet.journal import Journal, Mode
from scheduler.fleet.launch import Landed
from scheduler.fleet.report import plural
from scheduler.fleet.source import TaskFile
from scheduler.telemetry.options import TelemetryChoice
from scheduler.telemetry.telemetry import check
from scheduler.transport import TransportSetting

INTERRUPTED = 128


def execute(
    *,
    choice: EndpointChoice,
    emulator: dict[str, Any],
    tasks: str,
    agent_spec: str,
    model: str | None,
    store: bool | None,
    connections: int | None,
    concurrency: int,
    transport: TransportSetting,
    tenant: str | None,
    out: str | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    grace: float,
    telemetry: TelemetryChoice,
    debug: bool,
) -> int:
    """Return the exit status.

    What is cheap to check and likely to be wrong comes first; the results file comes last, so that nothing is
    created when something else is wrong.
    """
    if tenant is not None:
        check_name(tenant)
    endpoint = None if choice.embedded else choice.build()
    embedded = EmbeddedSettings(**emulator)
    if emulator:
        embedded.checked()
    agent = _adapted(load_agent(agent_spec), model, store)
    with TaskFile(tasks) as task_file:
        path = out if out is not None else default_out(tasks)
        _check_apart(path, tasks)
        if telemetry.wanted:
            check(telemetry)
        journal = Journal.open(path, _mode(resume, overwrite))
        display = open_display(sys.stderr, quiet=quiet)
        try:
            if journal.repaired:
                display.say(f"{path}: the last line was torn; it was mended")
            skipped = task_file.count_in(journal.finished)
            if resume:
                display.say(
                    f"resuming: {skipped} of {plural(len(task_file), 'task')} are completed in {path}"
                )
            flight = Flight(
                tasks=task_file,
                agent=agent,
                journal=journal,
                choice=choice,
                endpoint=endpoint,
                embedded=embedded,
                connections=connections,
                concurrency=concurrency,
                transport=transport,
                tenant=tenant,
                grace=grace,
                telemetry=telemetry,
                display=display,
                skipped=skipped,
            )
            landed: Landed | None
            if skipped == len(task_file):
                landed = nothing_to_do(flight)
            else:
                with logging_to(display, verbose=debug) as notices:
                    landed = trio.run(drive, flight, notices)
        finally:
            display.close()
            journal.close()
    if landed is None:
        raise KeyboardInterrupt
    return conclude(landed, as_json=as_json, debug=debug)


def conclude(landed: Landed, *, as_json: bool, debug: bool) -> int:
    """Print the report, then what ended the fleet early, if anything. Return the exit status."""
    report = landed.report
    some = report.turns or report.runs.total > report.runs.not_started
    if as_json:
        write(to_json(report.to_json()).decode(), data=True)
    elif some:
        write(report.to_text(), lines=True)
    if landed.fault is not None:
        return explain(landed.fault, debug=debug, usage=FAILED)
    if report.ok:
        return 0
    return INTERRUPTED + report.signal if report.signal else 1


def default_out(tasks: str) -> str:
    """Return where results go when nothing is said."""
    return "results.jsonl" if tasks == "-" else f"{Path(tasks).stem}.results.jsonl"


def _adapted(agent: Agent, model: str | None, store: bool | None) -> Agent:
    if model is not None:
        agent = evolve(agent, model=model)
    return agent if store is None else evolve(agent, store=store)


def _mode(resume: bool, overwrite: bool) -> Mode:
    mode: dict[bool, Literal["resume", "overwrite"]] = {resume: "resume", overwrite: "overwrite"}
    return mode.get(True, "new")


def _check_apart(out: str, tasks: str) -> None:
    if tasks != "-" and os.path.exists(out) and os.path.samefile(out, tasks):
        raise OutputFileError(out, "this is the tasks file; name another one with --out")

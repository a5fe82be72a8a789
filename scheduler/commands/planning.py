"""What `warmline plan` does once it is called for: question, plan, and where the answer goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pool.errors import PoolError
from pool.wire.codec import to_json
from scheduler.capacity.asking import QUANTITIES, Asked, question_of
from scheduler.capacity.facts import facts
from scheduler.capacity.plan import plan_for
from scheduler.capacity.text import describe
from scheduler.capacity.whatif import what_ifs
from scheduler.commands.failures import USAGE
from scheduler.commands.failures import describe as said
from scheduler.commands.output import write
from scheduler.errors import SchedulerError

EVERY = 0.2  # s, between two updates of the progress


def execute(options: dict[str, Any], *, debug: bool) -> int:
    """Plan, and say so. Returns the exit status."""
    report, png = options.pop("report"), options.pop("png")
    as_json, quiet, with_what_ifs = options.pop("as_json"), options.pop("quiet"), options.pop("what_if")
    quantities = {name: options.pop(name) for name, *_ in QUANTITIES}
    asked = Asked(
        files=tuple(options.pop("recordings")),
        quantities={name: text for name, text in quantities.items() if text is not None},
        **options,
    )
    try:
        report_to = None
        if report is not None or png is not None:
            from scheduler.capacity.report import prepare

            report_to = prepare(report, png)  # what is missing is said before the work, not after it
        question = question_of(asked)
        with Progress(quiet) as progress:
            found = plan_for(question, on_trial=progress.step)
            others = what_ifs(found, on_trial=progress.step) if with_what_ifs else ()
        if report_to is not None:
            for path in report_to(found, others):
                write(f"warmline: wrote {path}", err=True)
    except (SchedulerError, PoolError, OSError) as error:
        if debug:
            raise
        write(f"warmline: error: {said(error)}", err=True)
        return USAGE
    if as_json:
        write(to_json(facts(found, others)).decode(), data=True)
    else:
        write(describe(found, others), lines=True)
    return 0


class Progress:
    """How many simulations have been made, on one line of a terminal; nothing in a pipe."""

    def __init__(self, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._count, self._next = 0, 0.0
        self._clock: Callable[[], float] = time.monotonic

    def __enter__(self) -> Progress:
        return self

    def step(self) -> None:
        """One more."""
        self._count += 1
        if self._shown and self._clock() >= self._next:
            self._next = self._clock() + EVERY
            with suppress(OSError, ValueError):
                sys.stderr.write(f"\rwarmline: {self._count} simulations ...")
                sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if self._shown and self._count:
            with suppress(OSError, ValueError):
                sys.stderr.write("\r" + " " * 40 + "\r")
                sys.stderr.flush()

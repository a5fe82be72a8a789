"""What the packages log, as notices on the display: warnings, each kind only now and then."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from scheduler.commands.display import Display
from scheduler.commands.file_notices import FILES

QUIET = 10.0  # seconds in which the same kind of notice is not shown again


class Notices(logging.Handler):
    """Says a record on the display. With an outage each of many connections logs the same: one line will do.

    Muted until the fleet is under way: what goes wrong before ends the command, and is its one line of error.
    """

    def __init__(self, display: Display, *, verbose: bool) -> None:
        super().__init__(logging.NOTSET if verbose else logging.WARNING)
        self._display, self._verbose = display, verbose
        self._shown: dict[str, float] = {}
        self.muted = not verbose

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, or not."""
        kind = f"{record.name} {record.msg}"
        # Who can read a file is worth knowing before the fleet is under way, and ends nothing.
        if self.muted and record.name != FILES:
            return
        if self._verbose or record.created - self._shown.get(kind, 0.0) >= QUIET:
            self._shown[kind] = record.created
            self._display.say(record.getMessage())


@contextmanager
def logging_to(display: Display, *, verbose: bool) -> Iterator[Notices]:
    """Show what `warmline.*` logs on `display`; everything when `verbose`."""
    logger = logging.getLogger("warmline")
    propagate, level = logger.propagate, logger.level
    handler = Notices(display, verbose=verbose)
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        logger.setLevel(level)

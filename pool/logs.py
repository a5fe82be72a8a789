"""What the packages log, made safe before any handler sees it: the names of their loggers, and a filter on each.

A record's arguments may hold a server's or a client's words: a reason for closing, the name of a model, an exception
of a library's. The filter is on the loggers, not on a handler, so that it holds for every program that uses the
packages. A logger of another name would be without it; a test looks for those.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pool.printable import printable, printable_lines
from pool.redaction import redacted

NAMES = tuple(
    f"warmline.{name}"
    for name in ("pool", "scheduler", "tools", "gateway", "worker", "telemetry", "trace", "files")
)
LONGEST = 4000  # characters of an argument
_formatter = logging.Formatter()


class _Safe(logging.Filter):
    """Lets every record through, without secrets and without what steers a terminal."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, Mapping):
            record.args = {name: _safe(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(_safe(value) for value in record.args)
        if record.exc_info and not record.exc_text:
            # Formatters use what is there already.
            record.exc_text = printable_lines(redacted(_formatter.formatException(record.exc_info)))
        return True


def _safe(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    return printable(redacted(str(value)), LONGEST)


def make_safe() -> None:
    """Put the filter on all loggers of the packages."""
    for name in NAMES:
        logger = logging.getLogger(name)
        if not any(isinstance(one, _Safe) for one in logger.filters):
            logger.addFilter(_Safe())

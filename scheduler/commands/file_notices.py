"""Warnings about files that others can read, as lines of the command: they come before there is a display."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from scheduler.commands.output import write

FILES = "warmline.files"


class FileNotices(logging.Handler):
    """Shows a warning on stderr, unless a display does (see `notices`)."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show it."""
        if not logging.getLogger("warmline").handlers:
            write(f"warmline: {record.getMessage()}", err=True)


@contextmanager
def file_notices() -> Iterator[None]:
    """Show them while the block runs."""
    handler = FileNotices(logging.WARNING)
    logger = logging.getLogger(FILES)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)

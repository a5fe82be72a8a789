"""A tasks file, or standard input, to be read once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from scheduler.errors import TaskError


@contextmanager
def open_tasks(path: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield what to call it, and its lines.

    Raises:
        TaskError: it cannot be read.
    """
    source = "standard input" if path == "-" else path
    try:
        if path == "-":
            yield source, sys.stdin.buffer
        else:
            with open(path, "rb") as file:
                yield source, file
    except OSError as error:
        raise TaskError(f"cannot be read: {error.strerror}", source=source) from None

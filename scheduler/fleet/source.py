"""A tasks file: checked from end to end before the first task runs, then read again line by line."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Container, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import IO

from scheduler.errors import TaskError
from scheduler.fleet.tasks import Task, read_tasks

SPOOL = 16 * 1024 * 1024
"""Bytes of a pipe that are kept in memory before they go to a temporary file."""


class TaskFile:
    """The tasks of a file, in order; iterate as often as needed. `-` is standard input. Close it after use.

    What cannot be read twice (standard input, a pipe) is copied first.

    Raises:
        TaskError: the file cannot be read, a line is no task, or there is no task at all.
    """

    def __init__(self, path: str) -> None:
        self.source = "standard input" if path == "-" else path
        self._stack = ExitStack()
        try:
            self._file = self._open(path)
            self._ids = [task.id for task in self]
            if not self._ids:
                raise TaskError("no tasks: the file is empty; put one JSON object a line", source=self.source)
        except OSError as error:
            self.close()
            raise TaskError(f"cannot be read: {error.strerror}", source=self.source) from None
        except BaseException:
            self.close()
            raise

    def _open(self, path: str) -> IO[bytes]:
        raw = sys.stdin.buffer if path == "-" else self._stack.enter_context(open(path, "rb"))  # noqa: SIM115 - the stack closes it
        if path != "-" and stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            return raw
        spool: IO[bytes] = self._stack.enter_context(tempfile.SpooledTemporaryFile(SPOOL))  # noqa: SIM115
        shutil.copyfileobj(raw, spool)
        return spool

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Task]:
        self._file.seek(0)
        return read_tasks(self._file, source=self.source)

    def count_in(self, ids: Container[str]) -> int:
        """Return how many of the tasks are among `ids`."""
        return sum(id_ in ids for id_ in self._ids)

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __enter__(self) -> TaskFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""The results file: JSON Lines, one whole line a result, appended at once.

Theory of operation
    A result is one `write` of one line to a file opened for appending. When it returns, the line is with the
    operating system: the process may die in any way and the line stays. Against a power cut there is `sync`,
    which the fleet calls every few seconds and at the end.

    A line can still be torn, by a full disk or a machine that went down. On a full disk we cut our own half line
    off again. On resume, a last line without its line break is completed when it is whole, else cut off, and its
    task runs again. Of several lines for one id the last one holds.

    What stands in a file is never lost by accident: a file that is there needs `resume` or `overwrite`;
    `overwrite` empties it only when the first new result is there to replace it; and two fleets cannot write to
    one file at a time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from typing import Literal

from attrs import define, field, frozen

from pool.errors import SettingsError
from pool.private_files import open_private
from scheduler.errors import OutputFileError
from scheduler.fleet.results import Outcome, TaskResult, read_line

# Pipes and some file systems cannot be synced; the lines are written all the same.
_UNSYNCABLE = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EROFS})
Mode = Literal["new", "resume", "overwrite"]


@frozen(kw_only=True)
class Survey:
    """What a results file holds.

    `end` is where its whole lines end; `tail` says what to do with the rest of the file.
    """

    outcomes: dict[str, Outcome]
    end: int
    tail: Literal["none", "complete", "cut"]


def survey(fd: int, path: str) -> Survey:
    """Read the results in the open file.

    Raises:
        OutputFileError: a line other than a torn last one is no result.
    """
    outcomes: dict[str, Outcome] = {}
    end, tail = 0, "none"
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        for number, line in enumerate(file, 1):
            whole = line.endswith(b"\n")
            try:
                if line.strip():
                    id_, outcome = read_line(line)
                    outcomes[id_] = outcome
            except ValueError as error:
                if whole:
                    raise OutputFileError(
                        path,
                        f"line {number} is not a result ({error}); is this the right file? Nothing was changed",
                    ) from None
                return Survey(outcomes=outcomes, end=end, tail="cut")
            end += len(line)
            tail = "none" if whole else "complete"
    return Survey(outcomes=outcomes, end=end, tail="complete" if tail == "complete" else "none")


@define(eq=False)
class Journal:
    """An open results file. Use `Journal.open`, and close it."""

    path: str
    finished: frozenset[str]  # ids whose last line says completed: a resumed fleet skips them
    repaired: bool  # a torn last line was completed or cut off
    written: int = 0
    _fd: int = field(default=-1, alias="fd")
    _regular: bool = field(default=True, alias="regular")
    _created: bool = field(default=False, alias="created")
    _empty_first: bool = field(default=False, alias="empty_first")

    @classmethod
    def open(cls, path: str, mode: Mode = "new") -> Journal:
        """Open `path` for appending, before anything runs.

        Raises:
            OutputFileError: the file cannot be written, is there already (mode "new"), holds something that is
                no result (mode "resume"), is being written by another fleet, or was put there by another user.
        """
        fd, created = _open(path)
        try:
            info = os.fstat(fd)
            regular = stat.S_ISREG(info.st_mode)
            found = None
            if regular:
                _lock(fd, path)
                if info.st_size and mode == "new":
                    raise OutputFileError(
                        path,
                        "already there; --resume goes on where it ends, --overwrite replaces it, "
                        "--out FILE writes somewhere else",
                    )
                if mode == "resume":
                    found = survey(fd, path)
                    _repair(fd, found)
        except OutputFileError:
            os.close(fd)
            raise
        except OSError as error:
            os.close(fd)
            raise _cannot(path, error) from None
        outcomes = found.outcomes if found else {}
        return cls(
            path=path,
            finished=frozenset(id_ for id_, outcome in outcomes.items() if outcome == "completed"),
            repaired=found is not None and found.tail != "none",
            fd=fd,
            regular=regular,
            created=created,
            empty_first=regular and mode == "overwrite",
        )

    def append(self, result: TaskResult) -> None:
        """Write one result.

        Raises:
            OutputFileError: it could not be written, e.g. because the disk is full. The file ends in a whole line.
        """
        line = memoryview(result.to_line())
        try:
            if self._empty_first:
                os.ftruncate(self._fd, 0)
                self._empty_first = False
            done = os.write(self._fd, line)
            while done < len(line):
                done += self._go_on(line, done)
        except OSError as error:
            kept = f"{self.written} results of this run are kept; "
            remedy = (
                "make room and run again with --resume"
                if error.errno == errno.ENOSPC
                else "run with --resume"
            )
            raise OutputFileError(self.path, f"cannot be written: {error.strerror}; {kept}{remedy}") from None
        self.written += 1

    def _go_on(self, line: memoryview, done: int) -> int:
        """Write the rest of a line that was taken in part. If that fails too, cut the part off again."""
        try:
            return os.write(self._fd, line[done:])
        except OSError:
            if self._regular:
                with suppress(OSError):
                    os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_END) - done)
            raise

    def sync(self) -> None:
        """Make everything written so far safe against a power cut. Blocks: call it in a thread.

        Raises:
            OutputFileError: the device failed.
        """
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in _UNSYNCABLE:
                raise OutputFileError(self.path, f"cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Close the file; one that this run created and never wrote to is removed again."""
        if self._created and not self.written:
            with suppress(OSError):
                os.unlink(self.path)
        os.close(self._fd)


def _open(path: str) -> tuple[int, bool]:
    try:
        try:
            opened = open_private(path, os.O_RDWR | os.O_APPEND, setting="out")
        except FileNotFoundError:
            raise
        except OSError:  # a pipe's writing end, e.g. /dev/stdout, cannot be opened for reading as well
            opened = open_private(path, os.O_WRONLY | os.O_APPEND, setting="out")
    except SettingsError as error:
        raise OutputFileError(path, error.remedy) from None
    except OSError as error:
        raise _cannot(path, error) from None
    return opened.fd, opened.created


def _cannot(path: str, error: OSError) -> OutputFileError:
    remedy = "name a file you may write to with --out"
    if isinstance(error, FileNotFoundError):
        remedy = f"make the folder {os.path.dirname(path)!r} first"
    elif isinstance(error, IsADirectoryError):
        remedy = "name a file in it"
    return OutputFileError(path, f"cannot be written: {error.strerror}; {remedy}")


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputFileError(
            path, "another fleet is writing to it; wait for its end, or name another file with --out"
        ) from None
    except OSError:
        pass  # a file system without locks; the check is a courtesy


def _repair(fd: int, found: Survey) -> None:
    if found.tail == "complete":
        os.write(fd, b"\n")
    elif found.tail == "cut":
        os.ftruncate(fd, found.end)

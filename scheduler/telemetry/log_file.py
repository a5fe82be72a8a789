"""A log on the disk: appended to interval by interval, rotated by size, never left with half an interval."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable

from attrs import define, field

from pool.errors import SettingsError
from pool.private_files import open_private
from scheduler.telemetry.errors import TelemetryError
from scheduler.telemetry.hlog_format import MARK

KEPT = 5  # older files: FILE.1 is the youngest of them
_TAIL = 1 << 20  # bytes in which the last line's end is looked for


@define(eq=False)
class LogFile:
    """Every method blocks: call them from a thread. `header` gives the lines that begin a file."""

    path: str
    size_limit: int
    header: Callable[[], str]
    _fd: int = field(default=-1, init=False)
    _regular: bool = field(default=True, init=False)
    _fresh: bool = field(default=True, init=False)  # nothing of this process stands in the file yet

    def open(self) -> None:
        """Open the file to append to it.

        Raises:
            TelemetryError: it cannot be written, is no log, or is being written by another process.
        """
        try:
            # For its owner alone: labels name tenants, models and endpoints.
            self._fd = open_private(self.path, os.O_RDWR | os.O_APPEND, setting="stats").fd
            self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
            self._fresh = True
            if self._regular:
                self._claim()
        except SettingsError as error:
            self.close()
            raise TelemetryError(f"--stats {self.path}: {error.remedy}") from None
        except OSError as error:
            self.close()
            raise TelemetryError(
                f"--stats {self.path}: {error.strerror}; name a file that can be written"
            ) from None
        except TelemetryError:
            self.close()
            raise

    def _claim(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TelemetryError(
                f"--stats {self.path}: another process is writing it; give each process a file of its own"
            ) from None
        except OSError:
            pass  # a file system without locks
        size = os.fstat(self._fd).st_size
        if not size:
            return
        if not os.pread(self._fd, len(MARK), 0).startswith(MARK.encode()):
            raise TelemetryError(
                f"--stats {self.path}: it is there and is no log of warmline; name another file, or remove it"
            )
        tail = os.pread(self._fd, _TAIL, max(0, size - _TAIL))
        torn = len(tail) - tail.rfind(b"\n") - 1
        if torn:  # a process was ended in the middle of a line
            os.ftruncate(self._fd, size - torn)

    def write(self, text: str) -> None:
        """Append, all of it or nothing.

        Raises:
            OSError: nothing was written.
        """
        if self._fd < 0:
            self.open()
        if self._regular and not self._fresh and os.fstat(self._fd).st_size >= self.size_limit:
            self._rotate()
        data = ((self.header() if self._fresh else "") + text).encode()
        before = os.fstat(self._fd).st_size if self._regular else 0
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            if self._regular:
                os.ftruncate(self._fd, before)
            raise
        self._fresh = False

    def _rotate(self) -> None:
        for number in range(KEPT - 1, 0, -1):
            if os.path.exists(f"{self.path}.{number}"):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.replace(self.path, f"{self.path}.1")
        self.close()
        self.open()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

"""Keep processes apart at one SQLite file, with locks that nothing else in a process can lift.

Theory of operation
    SQLite locks with POSIX locks, which have a trap: when a process closes any descriptor of a file, all its locks on
    that file are gone. A tool that reads the files of a folder, the queue's among them, takes SQLite's locks away
    in passing; then two processes write at once, and the file is damaged. So every operation is made under a lock
    that belongs to a descriptor of ours: `flock`, shared by those who read, for one alone who writes or closes.

    Who closes the file last removes the write-ahead log, and takes itself for the last when it can lock the range
    that every user of the file shares. So we hold a lock on that range too, of the kind that belongs to a descriptor
    (Linux has it), from when the file is open until just before it is closed.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen

from pool.errors import SettingsError
from pool.private_files import check_database, open_private, still_there
from scheduler.worker.errors import QueueRefused, QueueUnavailable

PATIENCE = 10.0
"""Seconds to wait for another process; what it does lasts milliseconds."""
FIRST_DELAY, LONGEST_DELAY = 0.0002, 0.01
SHARED_FIRST, SHARED_SIZE = 0x40000002, 510
"""The range of SQLite's file format that each user of a file has locked."""


@frozen
class Guard:
    """The locks of one user of the file, over a descriptor of its own. Not for two threads at a time."""

    name: str
    descriptor: int

    @classmethod
    def open(cls, path: str, name: str) -> Guard:
        """Open the file; it is made, for this user alone, if it is not there. SQLite makes its own as that one is.

        Raises:
            QueueRefused: it cannot be.
        """
        try:
            opened = open_private(path, os.O_RDONLY, setting="queue")
        except SettingsError as error:
            raise QueueRefused(name, f"{path} {error.remedy}") from None
        except OSError as error:
            problem = f"the file cannot be opened ({error.strerror}); check its path and permissions"
            raise QueueRefused(name, problem) from None
        guard = cls(name, opened.fd)
        try:
            check_database(opened.path, setting="queue")
        except SettingsError as error:
            guard.close()
            raise QueueRefused(name, f"{error.value} {error.remedy}") from None
        return guard

    def check(self, path: str) -> None:
        """See that the path still stands for the file that is open here.

        Raises:
            QueueRefused: somebody has put another there.
        """
        try:
            still_there(self.descriptor, path, setting="queue")
        except SettingsError as error:
            raise QueueRefused(self.name, f"{path} {error.remedy}") from None

    @contextmanager
    def locked(self, *, alone: bool) -> Iterator[None]:
        """Hold the lock while the block runs.

        Raises:
            QueueUnavailable: another process keeps it.
        """
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        give_up_at, delay = time.monotonic() + PATIENCE, FIRST_DELAY
        while True:
            try:
                fcntl.flock(self.descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    problem = f"another process has kept it locked for {PATIENCE:g} s"
                    raise QueueUnavailable(self.name, problem) from None
            time.sleep(delay)
            delay = min(LONGEST_DELAY, delay * 2)
        try:
            yield
        finally:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def hold(self, *, hold: bool = True) -> None:
        """See to it that nobody takes itself for the file's last user, or do so no longer."""
        if sys.platform == "linux":
            kind = fcntl.F_RDLCK if hold else fcntl.F_UNLCK
            lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, SHARED_FIRST, SHARED_SIZE, 0)
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, lock)

    def close(self) -> None:
        """Give all up."""
        os.close(self.descriptor)

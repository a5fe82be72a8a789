"""A thread that writes notes to a file, so that the event loop never waits for a disk.

Theory of operation
    `put` is called in the event loop: it appends to a deque, which is safe between two threads without a lock. The
    thread empties it several times a second, in whole lines. What is queued is bounded: past the bound notes are
    dropped, counted, and the count becomes a line of its own.

    A file that has reached half of the limit becomes FILE.1, in place of the one before, and a new one begins: what
    happened last is kept, in at most `limit` bytes. Trouble with the file ends the tracing, with one warning: it
    must never end what is traced.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections import deque
from contextlib import suppress
from typing import IO

from attrs import define, evolve, field

from pool.errors import SettingsError
from pool.private_files import open_private
from pool.wire.codec import to_json
from scheduler.trace.records import Header
from scheduler.trace.scribe import Fact, Note, Scribe

log = logging.getLogger("warmline.trace")

INTERVAL = 0.25  # s between two writes
BATCH = 2_000  # notes that are written without waiting for it
MOST_NOTES = 500_000  # queued
MOST_BYTES = 64 * 1024 * 1024  # of contents queued


def older(path: str) -> str:
    """Return the name of the part before."""
    return f"{path}.1"


@define(eq=False)
class Writer:
    """Writes one trace. Call `start`, then `put`, at last `close`."""

    path: str
    limit: int
    scribe: Scribe
    header: Header
    _file: IO[bytes] = field(init=False)
    _notes: deque[Note] = field(factory=deque, init=False)
    _size: int = field(default=0, init=False)  # of the present file
    _rotates: bool = field(default=True, init=False)
    _wake: threading.Event = field(factory=threading.Event, init=False)
    _closing: bool = field(default=False, init=False)
    _dead: bool = field(default=False, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    # Each of these four has one writer: the event loop or the thread
    _in: int = field(default=0, init=False)  # bytes of contents queued so far
    _out: int = field(default=0, init=False)  # and taken
    _dropped: int = field(default=0, init=False)
    _told: int = field(default=0, init=False)  # of those

    def __attrs_post_init__(self) -> None:
        self._file = _open(self.path)
        self._rotates = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        try:
            self._begin()  # a disk that is full already is better told now
        except OSError as error:
            with suppress(OSError):
                self._file.close()
            raise OSError(error.errno, error.strerror, self.path) from None

    def start(self, header: Header) -> None:
        """Begin: the header is known now."""
        self.header = header
        self._thread = threading.Thread(target=self._run, name="warmline trace", daemon=True)
        self._thread.start()

    def put(self, note: Note, size: int = 0) -> None:
        """Take a note; `size`: of the contents in it, in bytes. Never blocks."""
        if self._dead:
            return
        if len(self._notes) >= MOST_NOTES or self._in - self._out > MOST_BYTES:
            self._dropped += 1
            return
        self._in += size
        self._notes.append(note)
        if len(self._notes) == BATCH:
            self._wake.set()

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._file.close()
        except OSError as error:
            self._die(error)

    def _run(self) -> None:
        self._guarded(self._begin_again)
        while not self._dead:
            self._wake.wait(INTERVAL)
            self._wake.clear()
            last = self._closing
            self._guarded(self._drain)
            if last:
                return

    def _guarded(self, step: object) -> None:
        assert callable(step)
        try:
            step()
        except OSError as error:
            self._die(error)

    def _die(self, error: OSError) -> None:
        if not self._dead:
            self._dead = True
            self._notes.clear()
            log.warning("%s: %s; the trace ends here, all else goes on", self.path, error.strerror or error)

    def _begin(self) -> None:
        head = to_json(self.header.to_line()) + b"\n"
        self._file.write(head)
        self._file.flush()
        self._size = len(head)

    def _begin_again(self) -> None:
        if self._rotates:  # what it began with did not know the time
            self._file.seek(0)
            self._file.truncate()
            self._begin()

    def _drain(self) -> None:
        lines: list[bytes] = []
        size = 0
        at = self.scribe.start
        while self._notes:
            note = self._notes.popleft()
            at = note.at
            text = getattr(note, "text", None)
            self._out += 0 if text is None else len(text)
            lines.append(self.scribe.line(note))
            size += len(lines[-1]) + 1
            if size > 1 << 20 or self._size + size >= self.limit // 2:
                self._write(lines, size)
                lines, size = [], 0
        if self._dropped > self._told:
            count, self._told = self._dropped - self._told, self._dropped
            lines.append(self.scribe.line(Fact(at, "", "lost", {"count": count})))
            size += len(lines[-1]) + 1
        if lines:
            self._write(lines, size)

    def _write(self, lines: list[bytes], size: int) -> None:
        self._file.write(b"\n".join(lines) + b"\n")
        self._file.flush()
        self._size += size
        if self._rotates and self._size >= self.limit // 2:
            self._file.close()
            os.replace(self.path, older(self.path))
            try:
                self._file = _open(self.path)
            except SettingsError as error:  # somebody else has put something there meanwhile
                raise OSError(errno.EEXIST, error.remedy, self.path) from None
            self.header = evolve(self.header, part=self.header.part + 1)
            self._begin()


def _open(path: str) -> IO[bytes]:
    """Open the file, emptied. For its owner alone: contents are private, and so are names."""
    file = open(open_private(path, os.O_WRONLY, setting="trace").fd, "wb")  # noqa: SIM115 - the caller closes it
    try:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.truncate()
    except BaseException:
        file.close()
        raise
    return file

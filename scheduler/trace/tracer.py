"""Record what passes on the wire, and what no frame shows, while a block runs."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import trio
from attrs import define, field, frozen

from pool.auth import Secret
from pool.errors import SettingsError
from pool.private_files import open_private
from pool.settings import Endpoint, without_query
from pool.tap import Tap, watching
from pool.wire.events import ClientEvent
from scheduler.trace.reader import is_trace
from scheduler.trace.records import Header
from scheduler.trace.scribe import Fact, In, Out, Scribe
from scheduler.trace.scrub import Scrubber
from scheduler.trace.settings import LIMIT, checked_limit
from scheduler.trace.writer import Writer, older


@contextmanager
def open_trace(path: str | os.PathLike[str], *, contents: bool = False, limit: int = LIMIT) -> Iterator[None]:
    """Record every pool that is opened in the block, in this task or in tasks that are started from it.

    The trace has no keys, and no contents unless they are asked for; then it has all that was said. A trace that is
    there is replaced. At most `limit` bytes are kept (of what happened last), in `path` and `path`.1.

    Raises:
        SettingsError: something else, or something of another user's, is there, or `limit` is too small.
        OSError: the file cannot be opened.
    """
    name = os.fspath(path)
    check_trace(name, limit)
    scribe = Scribe(Scrubber(), contents=contents)
    header = Header(id=uuid.uuid4().hex, started=time.time(), contents=contents, software=_software())
    tracer = Tracer(Writer(name, limit, scribe, header), contents)
    if os.path.isfile(older(name)):
        os.unlink(older(name))
    token = watching.set(tracer)
    try:
        yield
    finally:
        watching.reset(token)
        tracer.writer.close()


def check_trace(path: str, limit: int = LIMIT) -> None:
    """See whether a trace could be recorded there; nothing is replaced yet. Raises as `open_trace` does."""
    checked_limit(limit)
    for part in (path, older(path)):
        if os.path.isfile(part) and os.path.getsize(part) and not is_trace(part):
            raise SettingsError(
                "trace", part, "is there and is no trace, so it is not replaced; choose another name"
            )
    os.close(open_private(path, os.O_WRONLY, setting="trace").fd)


@define(eq=False)
class Tracer:
    """Makes a tap for every pool; one writer for all of them."""

    writer: Writer
    contents: bool
    _pools: int = field(default=0, init=False)

    def tap(self, endpoint: Endpoint) -> Tap:
        """Return the tap for a pool that is being made."""
        self._pools += 1
        scribe, now = self.writer.scribe, trio.current_time()
        if self._pools == 1:  # the clock can be read only now, and the header needs to know when it began
            scribe.start = now
            first = self.writer.header
            self.writer.start(
                Header(id=first.id, started=time.time(), contents=first.contents, software=first.software)
            )
        for value in endpoint.headers.values():
            self.hide(Secret(value))
        tap = PoolTap(self.writer, self.contents, "" if self._pools == 1 else f"p{self._pools}.")
        tap.note("pool", pool=self._pools, endpoint=endpoint.name, url=without_query(endpoint.url))
        return tap

    def hide(self, secret: Secret) -> None:
        """Never write this down."""
        self.writer.scribe.scrub.hide(secret)


@frozen(eq=False)
class PoolTap:
    """Takes notes of one pool, in the event loop."""

    writer: Writer
    contents: bool
    prefix: str  # tells its connections from those of other pools

    def sent(
        self, conn: object, stream_id: str | None, holder: str, event: ClientEvent, message: bytes
    ) -> None:
        """Take note of a message that is leaving."""
        size = len(message)
        text = message if self.contents else None
        self.writer.put(
            Out(trio.current_time(), self.prefix, conn, stream_id, holder, event, size, text),
            size if self.contents else 0,
        )

    def received(self, conn: object, payload: Mapping[str, Any], text: str | bytes) -> None:
        """Take note of a message that has come."""
        size = len(text)
        if self.contents:
            self.writer.put(In(trio.current_time(), self.prefix, conn, payload, size, text), size)
        else:
            self.writer.put(In(trio.current_time(), self.prefix, conn, payload, size, None))

    def note(self, what: str, **facts: object) -> None:
        """Take note of something else."""
        self.writer.put(Fact(trio.current_time(), self.prefix, what, facts))


def _software() -> str:
    try:
        return f"warmline {version('warmline')}"
    except PackageNotFoundError:  # run from its sources
        return "warmline"

"""Work that would take long, divided into slices by whoever does it. Pure.

A function that returns `Sliced[T]` is a generator: it yields whenever it has worked for about a millisecond, and
returns its result at the end. Who runs it decides what happens in between (`scheduler.gateway.slices` lets
everything else run); what is short never yields. Work is counted, not timed, so it is divided the same way each time.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from typing import TypeVar

from attrs import define, field

T = TypeVar("T")
Sliced = Generator[None, None, T]

SLICE = 1_000_000  # units of work between two pauses: about nanoseconds
COPY = (
    1024 * 1024
)  # bytes copied in one go; fresh memory costs more than the copying, a millisecond for three of these
_BYTE = 0.4  # units, of a byte that is copied


def at_once(work: Sliced[T]) -> T:
    """Do all of the work without a pause."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


@define
class Meter:
    """How much of a slice has been used."""

    used: float = field(default=0.0, init=False)

    def full(self, units: float) -> bool:
        """Count some work; True when it is time for a pause, and a new slice begins."""
        self.used += units
        if self.used < SLICE:
            return False
        self.used = 0.0
        return True


def copied(text: bytes, start: int, end: int, meter: Meter) -> Sliced[bytes]:
    """Return `text[start:end]`."""
    if end - start <= COPY:
        if meter.full((end - start) * _BYTE):
            yield
        return text[start:end]
    view = memoryview(text)
    return (yield from joined([view[at : min(at + COPY, end)] for at in range(start, end, COPY)], meter))


def joined(parts: Sequence[bytes | memoryview], meter: Meter) -> Sliced[bytes]:
    """Return `b"".join(parts)`."""
    whole = io.BytesIO()  # gives what was written without copying it once more
    for part in parts:
        view = memoryview(part)
        for at in range(0, len(view), COPY):
            size = whole.write(view[at : at + COPY])
            if meter.full(size * _BYTE + 500):
                yield
    return whole.getvalue()

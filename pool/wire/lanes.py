"""Which create may start: first in, first out on a lane, so many at a time on the connection.

Theory of operation. Creates wait in one line, in order of arrival. `settle` goes down the line and starts
every create whose lane is free and has nobody waiting before it, while fewer than `in_flight` run. Lane names
are counted for the connection's whole life.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from attrs import define, field

from pool.wire.refusal import Refused, invalid_stream_id, stream_limit_reached

Job = TypeVar("Job")
MAX_WAITING = 1024  # creates that wait on one connection
_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}", re.ASCII)


def checked_stream_id(body: Mapping[str, Any]) -> str | None:
    """Return the lane's name, None for the default lane. Raises `Refused` for a bad name."""
    name = body.get("stream_id")
    if name is None:
        return None
    if not isinstance(name, str) or not _STREAM_ID.fullmatch(name):
        raise invalid_stream_id()
    return name


@define(eq=False)
class LaneBook(Generic[Job]):
    """The lanes of one connection. The default lane's name is None."""

    in_flight: int
    named: int
    _names: set[str] = field(init=False, factory=set)
    _busy: set[str | None] = field(init=False, factory=set)
    _waiting: list[tuple[str | None, Job]] = field(init=False, factory=list)

    @property
    def running(self) -> int:
        """Creates that have started and not ended."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """Creates that wait for their turn."""
        return len(self._waiting)

    def admit(self, lane: str | None, job: Job) -> list[tuple[str | None, Job]]:
        """Let a create in and return what may start now. Raises `Refused` for one lane name too many."""
        if lane is not None and lane not in self._names:
            if self.named == 0:
                raise Refused(
                    "Unsupported parameter: stream_id", code="unsupported_parameter", param="stream_id"
                )
            if len(self._names) >= self.named:
                raise stream_limit_reached(self.named)
            self._names.add(lane)
        if len(self._waiting) >= MAX_WAITING:
            raise Refused(
                f"Too many requests wait on this connection ({MAX_WAITING}).",
                status=429,
                kind="too_many_requests",
                code="rate_limit_exceeded",
            )
        self._waiting.append((lane, job))
        return self.settle()

    def finish(self, lane: str | None) -> list[tuple[str | None, Job]]:
        """Free a lane and return what may start now."""
        self._busy.discard(lane)
        return self.settle()

    def settle(self) -> list[tuple[str | None, Job]]:
        """Return the creates that may start now, and count them as running."""
        started: list[tuple[str | None, Job]] = []
        left: list[tuple[str | None, Job]] = []
        taken = set(self._busy)
        for lane, job in self._waiting:
            if lane in taken or len(self._busy) >= self.in_flight:
                taken.add(lane)  # whoever waits behind on the same lane stays behind
                left.append((lane, job))
            else:
                taken.add(lane)
                self._busy.add(lane)
                started.append((lane, job))
        self._waiting = left
        return started

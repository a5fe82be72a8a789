"""When to read a connection again: at once, or a moment later, when more has come. Pure.

Theory of operation
    A read costs far more than a message: the event loop wakes up, asks the kernel, and goes through three layers.
    When messages come faster than they need be looked at, they are left to gather in the kernel and read together,
    as network cards do with their interrupts. That begins when two reads follow each other within half the
    interval, and ends with the first read that brings no more than one message, for then it was not worth the wait.
    So a connection with little on it is never made to wait, and on a busy one nothing is late by more than the
    interval.
"""

from __future__ import annotations


class Bunching:
    """The reads of one connection. `interval` in seconds; 0: never wait."""

    __slots__ = ("_before", "_interval", "_waits")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._before = float("-inf")
        self._waits = False

    def read(self, messages: int, now: float) -> None:
        """A read has brought so many messages."""
        if self._waits:
            self._waits = messages > 1
        else:
            self._waits = now - self._before < self._interval / 2
        self._before = now

    def pause(self, now: float) -> float:
        """Return how many seconds to wait with the next read; 0: not at all."""
        return max(0.0, self._before + self._interval - now) if self._waits else 0.0

"""The textbook's answers, to check a simulation by: Erlang C, Little's law, confidence intervals. Pure.

Erlang C is exact for calls that come independently, are served by any of `c` servers, take exponentially long and
wait in one line: M/M/c. A pool is none of that, so it is printed beside the simulation and not used for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import frozen

# Student's t, 97.5 %, by degrees of freedom from 1 on
_T = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)
_NORMAL = 1.96


def erlang_c(servers: int, offered: float) -> float:
    """Return the chance that a call has to wait. `offered`: calls in service at a time, on average."""
    if offered >= servers:
        return 1.0
    if offered <= 0:
        return 0.0
    blocked = 1.0  # Erlang B, by its recursion over the servers, which neither overflows nor cancels
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


@frozen(kw_only=True)
class Queue:
    """An M/M/c queue. Times in seconds."""

    servers: int
    rate: float  # calls a second
    service: float  # seconds, on average

    @property
    def offered(self) -> float:
        """Calls in service at a time: Little's law."""
        return self.rate * self.service

    @property
    def waits(self) -> float:
        """The share of calls that have to wait."""
        return erlang_c(self.servers, self.offered)

    @property
    def mean_wait(self) -> float:
        """The average wait of all calls."""
        spare = self.servers - self.offered
        return self.waits * self.service / spare if spare > 0 else math.inf

    def wait(self, share: float) -> float:
        """Return the wait that this share of all calls does not exceed."""
        spare = self.servers - self.offered
        if spare <= 0:
            return math.inf
        beyond = 1 - share
        if self.waits <= beyond:
            return 0.0
        return math.log(self.waits / beyond) * self.service / spare


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return where the mean lies with 95 % confidence, from independent values, by Student's t."""
    count = len(values)
    mean = sum(values) / count
    if count < 2 or not math.isfinite(mean):
        return -math.inf, math.inf
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    t = _T[count - 2] if count - 2 < len(_T) else _NORMAL
    half = t * deviation / math.sqrt(count)
    return mean - half, mean + half

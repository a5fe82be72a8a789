"""How late the event loop is: a task that means to wake at a certain time, and looks when it does.

Theory of operation
    A loop that is held up (by a tool that computes, by a big transcript) delays every turn of the process, and no
    other number says so. The probe wakes every quarter of a second while there is something to do, and parks when
    there has been nothing for a while, so that an idle pool costs nothing. Had the loop been free, the probe would
    have woken again and again during a long delay; those wake-ups are counted too, each from when it was meant to
    be. Otherwise ten seconds of standstill would be one sample among many good ones.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from attrs import define, field

from pool.stats.recorder import Histogram

INTERVAL = 0.25  # s
PATIENCE = 20  # wake-ups with nothing to do before it parks
MOST_MISSED = 2400  # wake-ups that one delay can count for: ten minutes


@define(eq=False)
class LagProbe:
    """The probe of one pool; `lag` is where it records, `busy` says whether there is something to do."""

    lag: Histogram
    busy: Callable[[], bool]
    _left: int = field(default=0, init=False)  # wake-ups until it parks
    _parked: trio.Event | None = field(default=None, init=False)

    def stir(self) -> None:
        """There is something to do: probe."""
        if self._parked is not None:
            self._parked.set()
            self._parked = None

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            if self.busy():
                self._left = PATIENCE
            elif not self._left:
                self._parked = trio.Event()
                await self._parked.wait()
                self._left = PATIENCE
            due = trio.current_time() + INTERVAL
            await trio.sleep_until(due)
            self._left -= 1
            self.record(trio.current_time() - due)

    def record(self, late: float) -> None:
        """Record one wake-up that came so late, and those that it took the place of."""
        self.lag.record(late)
        for missed in range(1, min(MOST_MISSED, int(late / INTERVAL)) + 1):
            self.lag.record(late - missed * INTERVAL)

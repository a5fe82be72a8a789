"""Pauses of many tasks that end together.

Theory of operation
    A busy connection pauses before it reads again (see `bunching`), a thousand times a second. `trio.sleep` is made
    for other things: it opens a cancel scope and raises through it to wake up, which costs more than the read. So
    only the first who pauses sleeps; whoever comes meanwhile is woken with it, earlier than it would have been. Where
    many connections are busy they pause in step, and nearly all of that is saved.

    When the sleeper is cancelled, the others wake at once: they merely read a little early.
"""

from __future__ import annotations

import trio
from attrs import define, field


@define(eq=False)
class Pauses:
    """Whoever pauses here. All ask for the same time, or nearly."""

    _sleeping: bool = field(default=False, init=False)  # somebody does, for all
    _others: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until an earlier pause of somebody else has ended."""
        if self._sleeping:
            await self._others.park()
            return
        self._sleeping = True
        try:
            await trio.sleep(seconds)
        finally:
            self._sleeping = False
            self._others.unpark_all()

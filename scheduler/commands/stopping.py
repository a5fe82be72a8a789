"""What Ctrl-C does to a fleet: first it stops, then it is cancelled, then the process goes."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable

import trio
from attrs import define, field

from scheduler.fleet.fleet import Fleet, Phase
from scheduler.fleet.report import plural

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@define(eq=False)
class Stopper:
    """Turns signals into an ever firmer end of a fleet.

    The first one lets the running tasks finish within `grace` seconds, the second cancels them, a third ends the
    process on the spot: results are in the file by then, as each was written when its run ended. While there is no
    fleet yet, the first one cancels `scope`, which is everything; when the fleet has ended, only the third counts.
    """

    scope: trio.CancelScope
    grace: float
    say: Callable[[str], None]
    give_up: Callable[[int], None] = field(default=lambda number: end_process(number))
    fleet: Fleet | None = field(default=None, init=False)
    note: str = field(default="", init=False)
    signal: int | None = field(default=None, init=False)  # the first that came
    _count: int = field(default=0, init=False)

    async def watch(self, signals: AsyncIterator[int]) -> None:
        """Take signals until cancelled."""
        async with trio.open_nursery() as nursery:
            async for number in signals:
                if self.receive(number):
                    nursery.start_soon(self._cancel_after_grace)

    def receive(self, number: int) -> bool:
        """Take one step. Return whether the grace period begins."""
        self._count += 1
        if self.signal is None:
            self.signal = number
        if self._count > 2:
            self.give_up(number)
        elif self.fleet is None:
            self.scope.cancel()
        elif self.fleet.phase is Phase.DONE:
            pass
        elif self._count == 1:
            self.fleet.stop()
            self.note = "stopping; Ctrl-C again cancels"
            running = plural(self.fleet.counts().running, "run")
            self.say(f"stopping: {running} may finish within {self.grace:g} s; Ctrl-C again cancels them now")
            return True
        else:
            self._cancel("cancelling now")
        return False

    async def _cancel_after_grace(self) -> None:
        await trio.sleep(self.grace)
        assert self.fleet is not None
        if self.fleet.phase is not Phase.DONE:
            self._cancel(f"cancelling what runs still, after {self.grace:g} s")

    def _cancel(self, words: str) -> None:
        assert self.fleet is not None
        self.note = "cancelling"
        self.say(f"{words}; results of finished runs are kept")
        self.fleet.cancel()


def end_process(number: int) -> None:  # pragma: no cover - it ends the process
    """End as the signal would have."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)

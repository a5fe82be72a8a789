"""Takes long work slice by slice, and lets everything else run in between; all requests take turns at that.

Theory of operation
    The event loop does nothing else while it works on a request. So what grows with a request is divided into slices
    (`pool.wire.slices`), and between two of them every task that can run does. But as many requests as have long work
    would each work for a slice between two runs of everybody else. So there is one turn for all of them: in each pass
    of the loop one slice is worked off, whoever's it is, and in the order in which they asked. How late anybody else
    is does not grow with the number of those requests, therefore; how long they take themselves does.
"""

from __future__ import annotations

from typing import TypeVar

import trio
from attrs import define, field

from pool.wire.slices import Sliced

T = TypeVar("T")


@define(eq=False)
class Slices:
    """The turn that all long work takes. `count`: slices that were waited for."""

    count: int = field(default=0, init=False)
    _turn: trio.Lock = field(factory=trio.Lock, init=False)

    async def run(self, work: Sliced[T]) -> T:
        """Do some work, and return what it returns. Without a checkpoint when it has only one slice.

        Raises:
            trio.Cancelled: between two slices; the work is given up.
        """
        while True:
            try:
                next(work)
            except StopIteration as end:
                result: T = end.value
                return result
            self.count += 1
            async with self._turn:  # passed on to who is next, who runs in the next pass of the loop
                pass

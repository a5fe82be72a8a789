"""How many bytes of events wait for slow consumers, over all lanes of a pool. No I/O.

Theory of operation
    A lane's queue has a bound of its own, but the bounds of all lanes add up to more than a machine has. So what is
    queued is counted for all of them together. Over the limit the lane with the longest queue is given up, and not
    that which happens to be next: whoever reads in time loses nothing to those who do not.
"""

from __future__ import annotations

import math
from typing import Protocol
from weakref import WeakKeyDictionary

from attrs import define, field


class Queue(Protocol):
    """What a lane's consumer has not taken yet."""

    queued_bytes: int

    def overflowed(self) -> None:
        """Give the queue up; it says so with `Backlog.less`."""
        ...


@define(eq=False)
class Backlog:
    """The queues of one pool. `limit`: bytes in all."""

    limit: float = math.inf
    held: int = field(default=0, init=False)  # bytes
    overflows: int = field(default=0, init=False)  # lanes that were given up for the others
    # That are not empty. One that nobody refers to any more takes what it held along
    _queues: WeakKeyDictionary[Queue, None] = field(factory=WeakKeyDictionary, init=False)

    def more(self, queue: Queue, size: int) -> None:
        """A queue has grown. The longest one overflows where there is too much in all."""
        if queue.queued_bytes == size:
            self._queues[queue] = None
        self.held += size
        if self.held > self.limit:
            self.held = sum(one.queued_bytes for one in self._queues)
            while self.held > self.limit:
                self.overflows += 1
                max(self._queues, key=lambda one: one.queued_bytes).overflowed()

    def less(self, queue: Queue, size: int) -> None:
        """A queue has been emptied of so much."""
        self.held -= size
        self._queues.pop(queue, None)

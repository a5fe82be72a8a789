"""What slow consumers leave unread is bounded over all lanes, and whoever is furthest behind pays for it."""

from __future__ import annotations

import gc

from attrs import define, field

from pool.backlog import Backlog


@define(eq=False)
class Lane:
    """A queue that is given up when it is told to."""

    backlog: Backlog
    queued_bytes: int = field(default=0, init=False)
    lost: bool = field(default=False, init=False)

    def grow(self, size: int) -> None:
        self.queued_bytes += size
        self.backlog.more(self, size)

    def overflowed(self) -> None:
        self.lost = True
        self.take()

    def take(self) -> None:
        self.backlog.less(self, self.queued_bytes)
        self.queued_bytes = 0


def test_the_longest_queue_goes_and_the_others_stay() -> None:
    backlog = Backlog(100)
    slow, slower, quick = Lane(backlog), Lane(backlog), Lane(backlog)
    slow.grow(40)
    slower.grow(50)
    quick.grow(10)
    assert backlog.held == 100
    quick.grow(1)
    assert [lane.lost for lane in (slow, slower, quick)] == [False, True, False]
    assert (backlog.held, backlog.overflows) == (51, 1)
    slow.take()
    quick.take()
    assert backlog.held == 0


def test_a_queue_that_nobody_has_any_more_holds_nothing() -> None:
    backlog = Backlog(100)
    forgotten = Lane(backlog)
    forgotten.grow(90)
    del forgotten
    gc.collect()
    quick = Lane(backlog)
    quick.grow(20)
    assert not quick.lost
    assert backlog.held == 20


def test_one_queue_alone_may_be_too_long() -> None:
    backlog = Backlog(100)
    lane = Lane(backlog)
    lane.grow(101)
    assert lane.lost
    assert backlog.held == 0

"""One response in flight on one lane: what its reader has taken in, and what its consumer has not yet seen.

Theory of operation
    The connection's reader calls `feed` for every message of the lane and never waits. Nobody needs the deltas
    of a response unless its caller streams it, so a plain exchange only lets the lane's `Cycle` see the few
    events that matter and wakes its consumer once, at the end. A streaming exchange queues every event and wakes
    its consumer when it was asleep; events that came in one read are handed over in one go. Past the high
    watermark the exchange fails, alone: the connection reads on.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from attrs import define, field

from pool.backlog import Backlog
from pool.errors import ConnectionLost, LaneOverflow, PoolError, RemoteProtocolError
from pool.slots import Lane
from pool.steering import Steering, Steerings, refusal_of
from pool.wire.codec import event_of_peek
from pool.wire.cycle import Cycle, Finished
from pool.wire.events import STARTED, STEER, TERMINAL, ErrorEvent, ServerEvent, SteerEvent
from pool.wire.peek import Peek

ANSWER_PATIENCE = 10.0  # s, for the answer to a steer, once the response has ended
ACTED = STARTED | STEER | TERMINAL | {"response.output_item.done", "error"}


@define(eq=False, kw_only=True)
class Exchange:
    """A response in flight. Made by `Lease.send`; the reader feeds it, one consumer waits on it."""

    lane: Lane
    cycle: Cycle
    parent: str | None
    streaming: bool
    max_events: int
    max_bytes: int
    backlog: Backlog = field(factory=Backlog)  # of all lanes of the pool
    sent_at: float
    size: int = 0  # bytes of the request
    warm_up: bool = False  # it only lets the server read: no output will come
    stored: bool = False  # its parent can be loaded, whatever the connection remembers
    delivered: bool = field(default=False, init=False)  # the request has left, whole
    first_event_at: float | None = field(default=None, init=False)
    first_output_at: float | None = field(default=None, init=False)  # the first event beyond "it has started"
    ended_at: float | None = field(default=None, init=False)
    finished: Finished | None = field(default=None, init=False)
    error: PoolError | None = field(default=None, init=False)
    overflow: LaneOverflow | None = field(default=None, init=False)
    steerings: Steerings = field(factory=Steerings, init=False)
    # Takes a delta on the spot, if it can: in the reader's own pass, so it must neither wait nor raise. Waking a task
    # for each would cost more than most of them are worth.
    at_once: Callable[[ServerEvent], bool] | None = field(default=None, init=False)
    _fed: int = field(default=0, init=False)  # messages
    # How many there were when last looked at, and since when
    _progress: tuple[int, float] = field(init=False)
    _queue: list[ServerEvent] = field(factory=list, init=False)
    queued_bytes: int = field(default=0, init=False)
    _wake: trio.Event = field(factory=trio.Event, init=False)
    _begun: trio.Event | None = field(default=None, init=False)  # somebody waits for the first event

    def __attrs_post_init__(self) -> None:
        self._progress = 0, self.sent_at

    @property
    def over(self) -> bool:
        """The response has ended, one way or the other; nothing more will be fed."""
        return self.finished is not None or self.error is not None

    def feed(self, found: Peek, text: str, now: float | None = None) -> Finished | None:
        """Take one message, of which `found` has been read; return the response's end if this was it.

        Raises:
            RemoteProtocolError: the lane cannot be trusted any more. The consumer gets the same error.
        """
        self._fed += 1
        if self.first_event_at is None:
            self.first_event_at = trio.current_time() if now is None else now
            self._begin()
        kind = found.type
        if self.first_output_at is None and kind not in STARTED:
            self.first_output_at = trio.current_time() if now is None else now
        event: ServerEvent | None = None
        if kind in ACTED:
            try:
                event = event_of_peek(found, text)
                finished = self.cycle.receive(self._steered(event) if self.steerings.all else event)
            except RemoteProtocolError as error:
                self.fail(error)
                raise
            if finished is not None:
                self._end(finished, trio.current_time() if now is None else now)
        if self.streaming and self.overflow is None:
            if event is None:
                event = event_of_peek(found, text)
                if self.at_once is not None and not self._queue and self.at_once(event):
                    return None
            self._push(event, len(text))
        if self.finished is not None:
            self._wake.set()
        return self.finished

    def _end(self, finished: Finished, now: float) -> None:
        self.ended_at, self.finished = now, finished
        self.steerings.end(lost=False)

    def steer(self) -> Steering:
        """A `response.steer` is about to be sent. Raises `LocalProtocolError` when there is nothing to steer."""
        steering = Steering(self.cycle.steer())
        self.steerings.all.append(steering)
        return steering

    def _steered(self, event: ServerEvent) -> ServerEvent:
        """Look for the answers to steers."""
        if isinstance(event, ErrorEvent) and self.cycle.started and self.steerings.waiting:
            stray = event.stream_id is None and self.lane.stream_id is not None
            event = refusal_of(event) if stray else event  # what is wrong with the response comes on its lane
        if isinstance(event, SteerEvent):
            self.steerings.take(event)
        return event

    def _push(self, event: ServerEvent, size: int) -> None:
        self._queue.append(event)
        self.queued_bytes += size
        self.backlog.more(self, size)
        if len(self._queue) > self.max_events or self.queued_bytes > self.max_bytes:
            self.overflowed()
        self._wake.set()

    def overflowed(self) -> None:
        """Give up what is queued: its consumer is too slow."""
        self.overflow = LaneOverflow(events=len(self._queue), size=self.queued_bytes)
        self._drop_queue()
        self._wake.set()

    def _drop_queue(self) -> None:
        self._queue.clear()
        self.backlog.less(self, self.queued_bytes)
        self.queued_bytes = 0

    def abandon(self) -> None:
        """Nobody will look at this response any more; its lane only waits for the end of it."""
        self.streaming, self.at_once = False, None
        self._drop_queue()

    def check(self, now: float, timeout: float) -> bool:
        """Give the response up, and return True, when nothing has come for `timeout` seconds.

        Looked at now and then, so that events need not be timed. One that has ended, but for the answer to a steer,
        is not waited for so long.
        """
        fed, since = self._progress
        if fed != self._fed:
            self._progress = self._fed, now
        elif now - since >= timeout and not self.over:
            error = f"{self.lane}: no event for {now - since:.0f} s, though the connection is alive"
            self.fail(ConnectionLost(error, sent=True, started=self.first_event_at is not None))
            return True
        elif now - since >= ANSWER_PATIENCE and not self.over and self.cycle.kept_waiting:
            self._end(self.cycle.forsake(), now)
            self._wake.set()
            return True
        return False

    def fail(self, error: PoolError) -> None:
        """The response will not end any more. Does nothing once it is over."""
        if not self.over:
            self.error = error
            self.ended_at = trio.current_time()
            self.steerings.end(lost=True)
            self._wake.set()
            self._begin()

    async def begun(self) -> None:
        """Wait for the first event, or until there will be none."""
        if self.first_event_at is None and not self.over:
            if self._begun is None:
                self._begun = trio.Event()
            await self._begun.wait()

    def waits_for(self, parent: str) -> bool:
        """It was sent to continue this response, has not begun, and would not find it anywhere else."""
        return self.parent == parent and self.first_event_at is None and not self.stored and not self.over

    def never_left(self) -> None:
        """The request was not sent: nothing will come."""
        self._begin()

    def _begin(self) -> None:
        if self._begun is not None:
            self._begun.set()

    async def result(self) -> Finished:
        """Wait for the end of the response. Cancelling only stops the wait.

        Raises:
            PoolError: it cannot end, e.g. `ConnectionLost`.
        """
        while not self.over:
            await self._asleep()
        return self._outcome()

    async def batch(self) -> list[ServerEvent]:
        """Wait for events and return those at hand; empty after the terminal one. Only for a streaming exchange.

        Raises:
            LaneOverflow: the caller was slower than the server for too long; the response is lost to it.
            PoolError: the response cannot end. What came before it has been returned first.
        """
        assert self.streaming
        while not self._queue and not self.over and not self.overflow:
            await self._asleep()
        if self.overflow is not None:
            raise self.overflow
        if not self._queue:
            self._outcome()
        if self.queued_bytes:
            self.backlog.less(self, self.queued_bytes)
        events, self._queue, self.queued_bytes = self._queue, [], 0
        return events

    async def _asleep(self) -> None:
        await self._wake.wait()
        self._wake = trio.Event()

    def _outcome(self) -> Finished:
        if self.error is not None:
            raise self.error
        assert self.finished is not None
        return self.finished

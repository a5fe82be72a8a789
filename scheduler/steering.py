"""What is said to a conversation while a turn of it runs: where it goes, and what becomes of it.

Theory of operation
    Before a try is sent, steering input is simply more input: it goes along. While the response runs it is sent to
    the server, which stops the response where it can and goes on with a successor on the same lane; the turn ends
    with that one. When the model had called tools by then, the input waits at the server for the turn that brings
    their outputs, which then needs not say it again.

    A try that fails takes with it what the server had accepted. Then that goes along with the next try as more input,
    so that nothing is lost that was accepted, and nothing said twice: no try's input is in the transcript before it
    has succeeded.
"""

from __future__ import annotations

import trio
from attrs import define, field

from pool.errors import ConnectionLost, LocalProtocolError
from pool.exchange import Exchange
from pool.lease import Lease
from pool.steering import TOO_LATE, Steering
from pool.wire.cycle import Finished
from pool.wire.events import Encoded
from scheduler.chain import Stage
from scheduler.errors import SteerRefused
from scheduler.turns import Steered, SteerOutcome
from scheduler.ways import Carrier, Reply

UNSUPPORTED = "steering_not_supported"


@define(eq=False)
class Submission:
    """One piece of steering input."""

    items: list[Encoded]
    steering: Steering | None = field(default=None, init=False)  # once it was sent
    added: bool = field(default=False, init=False)  # it goes along as input of a try

    @property
    def alive(self) -> bool:
        """Nobody has refused it."""
        return self.steering is None or self.steering.state not in ("refused", "failed")


@define(eq=False)
class Steers:
    """The steering input of one turn, in order."""

    all: list[Submission] = field(factory=list, init=False)
    _way: tuple[Carrier, Reply] | None = field(default=None, init=False)  # the try that is in flight
    _ended: bool = field(default=False, init=False)
    _change: trio.Event | None = field(default=None, init=False)

    def fold(self) -> list[Encoded]:
        """A try is about to be planned: return what goes along with it."""
        items: list[Encoded] = []
        for one in self.all:
            if one.alive and not one.added:
                one.added, one.steering = True, None
                items += one.items
        if items:
            self._changed()
        return items

    def sent(self, carrier: Carrier, reply: Reply) -> None:
        """The try is in flight."""
        self._way = carrier, reply
        self._changed()

    def idle(self) -> None:
        """The try is over."""
        self._way = None
        self._changed()

    def end(self) -> None:
        """The turn is over."""
        self._ended = True
        self._changed()

    async def steer(self, items: list[Encoded]) -> Steered:
        """Give the turn more input, and wait until it is accepted.

        Raises:
            SteerRefused: it was not.
            FrameTooLarge: no socket takes a message of this size.
        """
        one = Submission(items)
        self.all.append(one)
        try:
            while not one.added:
                if self._ended:
                    raise SteerRefused(TOO_LATE, "the turn was over before it could be told")
                if self._way is None or one.steering is not None:
                    await self._next_change()
                elif await self._send(one, *self._way):
                    return _said(one, "accepted")
            return _said(one, "added")
        except BaseException:
            if one.steering is None and not one.added:
                self.all.remove(one)
            raise

    async def _send(self, one: Submission, carrier: Carrier, reply: Reply) -> bool:
        """Send it to the response that runs. Return whether the server has accepted it; else nobody knows yet."""
        if not (isinstance(carrier, Lease) and isinstance(reply, Exchange)):
            raise SteerRefused(UNSUPPORTED, "the turn goes over HTTP, which cannot be steered")
        if carrier.lane.stream_id is None:
            raise SteerRefused(UNSUPPORTED, "the endpoint has single lanes, which cannot be steered")
        await reply.begun()
        try:
            one.steering = await carrier.steer(one.items)
        except (ConnectionLost, LocalProtocolError):  # over, or about to be: the turn says how it goes on
            if self._way == (carrier, reply):
                await self._next_change()
            return False
        steering = one.steering
        await steering.answered()
        if not one.alive:
            raise SteerRefused(steering.code, steering.message)
        return steering.state == "accepted"

    def _changed(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None

    async def _next_change(self) -> None:
        if self._change is None:
            self._change = trio.Event()
        await self._change.wait()

    def stages(self, finished: Finished) -> list[Stage]:
        """Return the responses that were steered on the way, each with what its successor was given."""
        return [Stage(output=one.output, input=self._items(one.steers)) for one in finished.before]

    def queued(self, finished: Finished) -> list[Encoded]:
        """Return what waits at the server for the next turn."""
        return self._items(finished.pending)

    def outcomes(self, finished: Finished) -> tuple[Steered, ...]:
        """Return what has become of each."""
        if not self.all:
            return ()
        taken = {steer for one in finished.before for steer in one.steers}
        outcomes: list[Steered] = []
        for one in self.all:
            if one.added:
                outcomes.append(_said(one, "added"))
            elif one.steering is not None and one.steering.id in taken:
                outcomes.append(_said(one, "taken"))
            elif one.steering is not None and one.steering.id in finished.pending:
                outcomes.append(_said(one, "pending"))
            else:
                outcomes.append(_said(one, "failed" if one.steering and one.steering.id else "refused"))
        return tuple(outcomes)

    def _items(self, ids: tuple[str, ...]) -> list[Encoded]:
        by_id = {one.steering.id: one.items for one in self.all if one.steering is not None}
        return [item for steer in ids for item in by_id.get(steer, ())]


def _said(one: Submission, outcome: SteerOutcome) -> Steered:
    steering = one.steering
    if steering is None:
        return Steered(outcome=outcome)
    return Steered(outcome=outcome, id=steering.id, code=steering.code, message=steering.message)

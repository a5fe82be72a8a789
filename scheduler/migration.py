"""Moving a conversation to another lane while nobody waits for it.

Theory of operation
    When its connection is about to be replaced, or was lost, a conversation whose model has called tools will be
    back soon, and would have to replay. So while the tools run, a warm-up on another lane (`generate: false`) lets
    the server read the transcript there; the next turn is then a delta on that lane. The warm-up ends before the
    calls that are still open; they travel with their outputs.

    A turn never waits for a move that it can do without: while its old lane is there it takes that one, and the
    move is given up, to be made after the turn. Only when the old lane is gone does it wait, because the move has
    had a start on the replay that it would have to make itself.

    Moves are polite (they take no lane that another conversation is hot on) and few at a time. They cost tokens, so
    they are admitted like turns, but never at the expense of one: a move that finds no slot free is given up. A
    conversation that is stored needs none, and one that has its answer may never come back: they just give up the
    lane.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio
from attrs import define, field

from pool.errors import PoolError
from pool.pool import Pool
from pool.slots import Hold
from pool.stats.recorder import Histogram
from pool.wire.events import Encoded, ResponseCreate
from scheduler.admission.shell import Admission
from scheduler.admission.ticket import Ticket
from scheduler.chain import Chain
from scheduler.outcome import failure_of, usage_of

log = logging.getLogger("warmline.scheduler")


@define(eq=False)
class Movers:
    """What all moves of one scheduler share."""

    pool: Pool
    admission: Admission
    at_once: trio.CapacityLimiter
    took: Histogram  # s, those that were made
    made: int = field(default=0, init=False)
    given_up: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)

    @property
    def counts(self) -> dict[str, int]:
        """Moves so far."""
        return {"made": self.made, "given_up": self.given_up, "failed": self.failed}


@define(eq=False)
class Migration:
    """The moves of one conversation, at most one at a time. `arrived` is given the hold that has the new lane."""

    name: str
    chain: Chain
    movers: Movers
    arrived: Callable[[Hold], None]
    _scope: trio.CancelScope | None = field(default=None, init=False)
    _over: trio.Event = field(factory=trio.Event, init=False)
    _fields: Encoded | None = field(default=None, init=False)
    _model: str = field(default="", init=False)
    _ticket: Ticket | None = field(default=None, init=False)
    _reading: bool = field(default=False, init=False)  # the server has the transcript, or is being sent it

    def begin(self, fields: Encoded, model: str, ticket: Ticket) -> None:
        """Move while nobody waits; `fields` and `model` are those of the last turn's request."""
        if self._scope is None:
            self._scope, self._over = trio.CancelScope(), trio.Event()
            self._fields, self._model, self._ticket = fields, model, ticket
            self.movers.pool.spawn(self._run, name=f"move of {self.name}")

    async def make_way(self, *, needed: bool) -> None:
        """A turn begins: give the move up, or wait for it if it is `needed`: there is no lane to go back to."""
        if self._scope is not None:
            if not (needed and self._reading):  # a polite wait for a lane may be a long one
                self.give_up()
            await self._over.wait()

    def give_up(self) -> None:
        """Stop a move that is under way."""
        if self._scope is not None:
            self._scope.cancel()

    async def _run(self) -> None:
        assert self._scope is not None
        assert self._fields is not None
        movers, began, made = self.movers, trio.current_time(), False
        self._note("begins")
        try:
            with self._scope:
                async with movers.at_once:
                    made = await self._move(self._fields)
                if made:
                    movers.made += 1
                    movers.took.record(trio.current_time() - began)
                    self._note("made")
            if not made:
                movers.given_up += 1
                self._note("given up")
        except PoolError as error:
            movers.failed += 1
            self._note("failed", error=error)
            log.info("%s could not move: %s", self.name, error)
        finally:
            self._scope, self._reading = None, False
            self._over.set()

    def _note(self, state: str, **facts: object) -> None:
        if self.movers.pool.tap is not None:
            self.movers.pool.tap.note("move", conv=self.name, state=state, **facts)

    async def _move(self, fields: Encoded) -> bool:
        """Make the move; False: there was no slot for it."""
        assert self._ticket is not None
        movers, hold = self.movers, Hold(self.name)
        holder = f"{self.name} (moving)"
        async with movers.pool.lease(hold, polite=True, holder=holder, model=self._model) as lease:
            with movers.admission.beside(self._ticket, model=self._model, cost=self.chain.tokens) as slot:
                if slot is None:
                    return False
                self._reading = True
                create = ResponseCreate(input=self.chain.asked, generate=False, fields=fields)
                exchange = await lease.send(create)
                finished = await exchange.result()
                failure = failure_of(finished)
                if failure is not None:
                    movers.pool.let_go(hold)
                    raise failure
                slot.used(usage_of(finished.response))
        assert finished.response_id is not None
        self.chain.warmed(finished.response_id)
        self.arrived(hold)
        return True

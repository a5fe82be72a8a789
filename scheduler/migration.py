"""Moving a conversation to another lane while nobody waits for it.

Theory of operation
    When its connection is about to be replaced, or was lost, a conversation whose model has called tools will be
    back soon, and would have to replay. So while the tools run, a warm-up on another lane (`generate: false`) lets
    the server read the transcript there; the next turn is then a delta on that lane. The warm-up ends before the
    calls that are still open; they travel with their outputs.

    A turn never waits for a move that it can do without: while its old lane is there it takes that one, and the
    move is given up. That is a waste, so a move begins only if it will probably be over in time (`Departures`).
    Only when the old lane is gone does a turn wait, because the move has had a start on the replay that it would
    have to make itself.

    Moves are polite (they take no lane that another conversation is hot on) and few at a time. They cost tokens, so
    they are admitted like turns, but never at the expense of one: a move that finds no slot free is given up. A
    conversation that is stored needs none, and one that has its answer may never come back: they just give up the
    lane.
"""

from __future__ import annotations

import logging
import time

import trio
from attrs import define, field

from pool.errors import PoolError
from pool.slots import Hold
from pool.wire.events import ResponseCreate
from scheduler.admission.ticket import Ticket
from scheduler.movers import Mover, Movers
from scheduler.outcome import failure_of, usage_of
from scheduler.standing import Standing
from scheduler.turns import TurnRequest

log = logging.getLogger("warmline.scheduler")


@define(eq=False)
class Migration(Mover):
    """The moves of one conversation, at most one at a time."""

    at: Standing = field(kw_only=True)
    _ticket: Ticket | None = field(default=None, init=False)
    _scope: trio.CancelScope | None = field(default=None, init=False)
    _over: trio.Event = field(factory=trio.Event, init=False)
    _reading: bool = field(default=False, init=False)  # the server has the transcript, or is being sent it

    def begin(self, ticket: Ticket) -> None:
        """The lane is about to go, or has gone: find another while nobody waits for it, or just give it up."""
        at = self.at
        if at.request is None or at.ended_at is None or self._scope is not None:
            return
        if at.calls and not at.chain.store and at.chain.asked:
            takes = at.shared.estimates.replay(at.request.model).cold(at.chain.tokens, stored=False)
            self.ask(at.hold, since=at.ended_at, takes=takes)
            self._ticket = ticket
            self._movers.ask(self)
        else:
            at.shared.pool.let_go(at.hold, why="rotated")

    def depart(self) -> None:
        """It is time."""
        assert self.at.request is not None
        self._scope, self._over = trio.CancelScope(), trio.Event()
        self.at.shared.pool.spawn(self._run, name=f"move of {self.at.name}")

    async def make_way(self) -> None:
        """A turn wants a lane: give the move up, or wait for it where there is none to go back to."""
        self._movers.withdraw(self)
        if self._scope is not None:
            # A polite wait for a lane may be a long one, so that the turn had better look for itself.
            if self.at.hold.lane is not None or not self._reading:
                self.give_up()
            await self._over.wait()

    def give_up(self) -> None:
        """Stop a move that is under way, and let none begin."""
        self._movers.withdraw(self)
        if self._scope is not None:
            if self._reading:
                self.overtaken()
            self._scope.cancel()

    @property
    def _movers(self) -> Movers:
        return self.at.shared.movers

    async def _run(self) -> None:
        assert self._scope is not None
        assert self.at.request is not None
        movers, began, made = self._movers, trio.current_time(), False
        self._note("begins")
        try:
            with movers.under_way(), self._scope:
                made = await self._move(self.at.request)
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
            log.info("%s could not move: %s", self.at.name, error)
        finally:
            self._scope, self._reading = None, False
            self._over.set()

    def _note(self, state: str, **facts: object) -> None:
        if self._movers.pool.tap is not None:
            self._movers.pool.tap.note("move", conv=self.at.name, state=state, **facts)

    async def _move(self, request: TurnRequest) -> bool:
        """Make the move; False: there was no slot for it."""
        assert self._ticket is not None
        at, chain, hold = self.at, self.at.chain, Hold(self.at.name)
        pool, admission = at.shared.pool, at.shared.admission
        fields = at.shared.fields(request, store=False)
        async with pool.lease(hold, polite=True, holder=f"{at.name} (moving)", model=request.model) as lease:
            with admission.beside(self._ticket, model=request.model, cost=chain.tokens) as slot:
                if slot is None:
                    return False
                self._reading = True
                exchange = await lease.send(ResponseCreate(input=chain.asked, generate=False, fields=fields))
                finished = await exchange.result()
                failure = failure_of(finished, time.time())
                if failure is not None:
                    pool.let_go(hold)
                    raise failure
                slot.used(usage_of(finished.response))
        assert finished.response_id is not None
        chain.warmed(finished.response_id)
        self._arrive(hold)
        return True

    def _arrive(self, hold: Hold) -> None:
        """Another lane remembers the conversation now."""
        at = self.at
        old, at.hold = at.hold, hold
        hold.worth, hold.gap = old.worth, old.gap
        hold.on_leave, old.on_leave = old.on_leave, None
        at.shared.pool.let_go(old, why="moved")

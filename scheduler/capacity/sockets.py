"""The connections of a simulated pool in virtual time: what `Pool` and its janitor do as the roster says. Pure.

They open after as long as the load's dials take, are lost as often as the scenario says, and are looked after when
something of the roster's own comes due.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define, field

from pool.slots import BUSY, Close, Command, Conn, ConnState, Dial, Grant, Leave, Refuse, Waiter
from scheduler.capacity.moves import Move
from scheduler.capacity.talk import Seat

if TYPE_CHECKING:
    from scheduler.capacity.simulation import Simulation


@define(eq=False)
class Sockets:
    """All connections of one simulation."""

    sim: Simulation
    _tick_at: float = field(default=math.inf, init=False)

    def apply(self, commands: Iterable[Command]) -> None:
        """Carry out what the roster says: `Pool._apply`."""
        sim = self.sim
        for command in commands:
            if type(command) is Grant:  # nearly all of them, and a match would cost a third more
                waiter = command.waiter
                if isinstance(waiter, Seat):
                    sim.send(waiter)
                elif isinstance(waiter, Move):
                    sim.moves.granted(waiter)
                continue
            match command:
                case Dial(conn):
                    sim.tally.open.add(1, sim.now)
                    sim.at(sim.now + sim.scenario.load.dial.at(sim.rng.random()), self._opened, conn)
                case Leave(hold):
                    if hold.on_leave is not None:
                        hold.on_leave()
                    else:
                        self.apply(sim.roster.let_go(hold, "rotated", now=sim.now))
                case Close(_conn, why):
                    sim.tally.open.add(-1, sim.now)
                    sim.tally.note("rotated", why == "rotated")
                case Refuse(waiter):
                    self._refused(waiter)
        roster = sim.roster
        if roster.waiters or len(roster.ledger.shelf) < roster.settings.min_idle:
            self.watch()

    def watch(self) -> None:
        """Wake the roster when something of its own comes due: the janitor."""
        sim = self.sim
        due = max(sim.roster.next_due(), sim.now)
        if due < self._tick_at:
            self._tick_at = due
            sim.at(due, self._tick, due)

    def outage(self) -> None:
        """Lose, at once, as many of them as the scenario says."""
        sim = self.sim
        sockets = [*sim.roster.ledger.open, *sim.roster.ledger.leaving]
        for conn in sim.rng.sample(sockets, math.ceil(len(sockets) * sim.scenario.outage)):
            self._lose(conn)

    def _tick(self, due: float) -> None:
        if due == self._tick_at:
            self._tick_at = math.inf
            self.apply(self.sim.roster.tick(now=self.sim.now))
            self.watch()

    def _refused(self, waiter: Waiter) -> None:
        if isinstance(waiter, Seat):
            self.sim.refused(waiter.talk)
        elif isinstance(waiter, Move):
            self.sim.moves.failed(waiter)

    def _opened(self, conn: Conn) -> None:
        sim = self.sim
        if conn.state is ConnState.DIALING:
            sim.tally.note("opened")
            if sim.scenario.load.losses_per_hour:
                life = sim.rng.expovariate(sim.scenario.load.losses_per_hour / 3600)
                sim.at(sim.now + life, self._lose, conn)
        self.apply(sim.roster.opened(conn, now=sim.now))
        self.watch()

    def _lose(self, conn: Conn) -> None:
        """A connection is lost, and with it what is in flight on it: `Pool._ended`, then `Attempts.run`."""
        sim, now = self.sim, self.sim.now
        if conn.state in (ConnState.DIALING, ConnState.CLOSED):
            return
        hit = [sim.flying.pop(lane) for lane in conn.lanes if lane in sim.flying and lane.state in BUSY]
        sim.tally.busy.add(-len(hit), now)
        sim.tally.open.add(-1, now)
        sim.tally.note("lost")
        self.apply(sim.roster.lost(conn, now=now))
        for one in hit:
            if isinstance(one, Seat):
                sim.again(one.talk)
            else:
                sim.moves.failed(one)
        self.watch()

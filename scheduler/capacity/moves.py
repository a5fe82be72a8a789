"""Conversations that move to another connection between turns, in virtual time: what `Migration` does. Pure.

As there: few at a time, when there is probably time (`Departures`), polite, given up when the conversation's turn
comes while its old lane is still there, and waited for when that is gone and the server is reading already.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING

from attrs import define, field

from pool.slots import ConnState, Hold, Waiter
from scheduler.departures import Departure, Departures, at_once

if TYPE_CHECKING:
    from scheduler.capacity.simulation import Simulation
    from scheduler.capacity.talk import Talk


class MoveState(enum.Enum):
    """How far a move has come."""

    WAITING = "waiting"  # for a lane
    READING = "reading"  # the server reads the transcript
    OVER = "over"


@define(eq=False, kw_only=True)
class Move(Waiter):
    """One move, and its claim on the new lane."""

    talk: Talk
    state: MoveState = field(default=MoveState.WAITING, init=False)


@define(eq=False)
class Leaver(Departure):
    """One that would move."""

    talk: Talk = field(kw_only=True)


@define(eq=False)
class Moves:
    """All moves of one simulation."""

    sim: Simulation
    limit: int | None
    _waiting: Departures[Leaver] = field(factory=Departures, init=False)
    _under_way: int = field(default=0, init=False)
    _look_at: float = field(default=math.inf, init=False)

    def leaver(self, talk: Talk) -> Leaver:
        """Return the wishes of a conversation, none so far."""
        return Leaver(talk=talk)

    def begin(self, talk: Talk) -> None:
        """Its lane is about to go, or has gone: find another."""
        if talk.move is not None or talk.ended_at is None:
            return
        talk.leaver.ask(talk.hold, since=talk.ended_at, takes=self._reading(talk))
        self._waiting.add(talk.leaver)
        self._depart()

    def make_way(self, talk: Talk) -> bool:
        """Its turn wants a lane. Return whether it need not wait for a move."""
        self._waiting.discard(talk.leaver)
        if talk.move is not None:
            if talk.hold.lane is None and talk.move.state is MoveState.READING:
                talk.stuck = True
                return False
            self.give_up(talk)
        return True

    def give_up(self, talk: Talk) -> None:
        """Stop a move that is under way, and let none begin."""
        self._waiting.discard(talk.leaver)
        move, sim = talk.move, self.sim
        if move is None:
            return
        talk.move = None
        if move.state is MoveState.WAITING:
            sim.sockets.apply(sim.roster.withdraw(move, now=sim.now))
        else:
            assert move.lane is not None
            talk.leaver.overtaken()
            # The response runs on; the lane is good again when it has ended.
            sim.sockets.apply(sim.roster.release(move.lane, keep=False, fouled=True, now=sim.now))
        self._end(move)

    def granted(self, move: Move) -> None:
        """There is a lane: let the server read."""
        sim, talk = self.sim, move.talk
        assert move.lane is not None
        move.state = MoveState.READING
        sim.flying[move.lane] = move
        sim.tally.busy.add(1, sim.now)
        sim.at(sim.now + self._reading(talk), self._read, move)

    def failed(self, move: Move) -> None:
        """Its new connection was lost, or there is none to be had."""
        talk = move.talk
        if move.state is MoveState.OVER:
            return
        talk.move = None
        self._end(move)
        self._unstick(talk)

    def _read(self, move: Move) -> None:
        sim, talk, lane = self.sim, move.talk, move.lane
        assert lane is not None
        if sim.flying.get(lane) is not move:
            return  # lost meanwhile
        del sim.flying[lane]
        sim.tally.busy.add(-1, sim.now)
        sim.tally.note("moved_tokens", talk.tokens)
        if move.state is MoveState.OVER:  # given up meanwhile
            if lane.conn.state is not ConnState.CLOSED:
                sim.sockets.apply(sim.roster.drained(lane, now=sim.now))
            return
        sim.sockets.apply(sim.roster.release(lane, keep=True, now=sim.now))
        sim.tally.note("moves")
        old, new = talk.hold, move.hold
        assert new is not None
        talk.hold, new.worth, new.gap = new, old.worth, old.gap
        new.on_leave, old.on_leave = old.on_leave, None
        sim.sockets.apply(sim.roster.let_go(old, "moved", now=sim.now))
        talk.move = None
        self._end(move)
        self._unstick(talk)

    def _unstick(self, talk: Talk) -> None:
        if talk.stuck:
            talk.stuck = False
            self.sim.take_lane(talk)

    def _end(self, move: Move) -> None:
        move.state = MoveState.OVER
        self._under_way -= 1
        self._depart()

    def _reading(self, talk: Talk) -> float:
        load = self.sim.scenario.load
        return load.first_output + load.replay_seconds(talk.tokens)

    def _depart(self) -> None:
        """Let those move who should, and look again when others may."""
        if not self._waiting:
            return
        sim = self.sim
        limit = at_once(sim.scenario.capacity) if self.limit is None else self.limit
        for leaver in self._waiting.take(limit - self._under_way, sim.now):
            move = leaver.talk.move = Move(hold=Hold(), polite=True, talk=leaver.talk)
            self._under_way += 1
            sim.sockets.apply(sim.roster.enqueue(move, now=sim.now))
        due = self._waiting.due(sim.now)
        if self._under_way < limit and due < self._look_at:
            self._look_at = due
            sim.at(due, self._look)

    def _look(self, _about: None) -> None:
        self._look_at = math.inf
        self._depart()

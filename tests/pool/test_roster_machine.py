"""Whatever happens to a roster, in whatever order: what must always hold, holds."""

from __future__ import annotations

import math
import random
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pool.errors import DialFailed, PoolClosed
from pool.roster import RESERVE_SHARE, Roster
from pool.settings import Endpoint, Lanes, PoolSettings
from pool.slots import (
    BUSY,
    Close,
    Command,
    Conn,
    ConnState,
    Dial,
    Grant,
    Hold,
    Lane,
    LaneState,
    Refuse,
    Waiter,
)

LANES = [
    Lanes.single(),
    Lanes(in_flight=1, named=2),
    Lanes(in_flight=2, named=3),
    Lanes(in_flight=2, named=2),
]
SETTINGS = st.builds(
    PoolSettings,
    max_connections=st.integers(1, 3),
    min_idle=st.integers(0, 3),
    max_waiters=st.integers(0, 5),
    dial_concurrency=st.integers(1, 3),
    dial_rate=st.sampled_from([0.5, 2.0, 50.0]),
    dial_burst=st.integers(1, 3),
    dial_attempts=st.integers(1, 3),
    dial_patience=st.sampled_from([0.0, 1.0, 5.0]),
    reserve=st.sampled_from([0.0, 10.0, 300.0]),
    jitter=st.sampled_from([0.0, 5.0]),
    rotation_overlap=st.integers(1, 2),
    idle_timeout=st.sampled_from([7.0, 100.0]),
    abandon_timeout=st.sampled_from([0.0, 3.0]),
)
PICK = st.integers(0, 11)  # which of those at hand, modulo their number


class RosterMachine(RuleBasedStateMachine):
    """Plays the callers, the shell and the network; checks the roster's promises after every step."""

    @initialize(settings=SETTINGS, lanes=st.sampled_from(LANES), age=st.sampled_from([60.0, 600.0]))
    def start(self, settings: PoolSettings, lanes: Lanes, age: float) -> None:
        endpoint = Endpoint(name="test", url="ws://test/", lanes=lanes, max_age=age)
        self.roster = Roster(endpoint=endpoint, settings=settings, rng=random.Random(7))
        self.now = 0.0
        self.holds = [Hold(str(index)) for index in range(4)]
        self.waiting: list[Waiter] = []  # in the order in which they came
        self.unseen: list[Waiter] = []  # granted, but their tasks have not run yet
        self.leases: list[Lane] = []
        self.dials: list[Conn] = []  # under way
        self.all: list[Conn] = []
        self.closes: set[Conn] = set()
        self.overslept = False
        self.apply(self.roster.resume(now=self.now))

    # The shell.

    def apply(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Dial(conn):
                    assert conn not in self.all
                    self.all.append(conn)
                    self.dials.append(conn)
                case Grant(waiter):
                    assert not self.roster.paused
                    assert waiter.error is None
                    assert waiter.lane is not None
                    assert waiter.lane not in self.leases
                    assert waiter.lane not in [other.lane for other in self.unseen]
                    self.check_turn_of(waiter)
                    self.waiting.remove(waiter)
                    self.unseen.append(waiter)
                case Refuse(waiter):
                    assert waiter.lane is None
                    assert waiter.error is not None
                    self.waiting.remove(waiter)
                case Close(conn, _why):
                    assert conn not in self.closes, "closed twice"
                    assert conn.state is ConnState.CLOSED
                    self.closes.add(conn)
        self.dials = [conn for conn in self.dials if conn.state is ConnState.DIALING]

    def check_turn_of(self, waiter: Waiter) -> None:
        if waiter.pin:
            assert waiter.lane is not None
            assert waiter.hold is not None
            assert waiter.hold.lane is waiter.lane
        elif waiter.hold is None and waiter.near is None:
            earlier = self.waiting[: self.waiting.index(waiter)]
            special = [other.pin or other.polite or other.hold or other.near for other in earlier]
            assert all(special), "out of turn"

    def due(self) -> None:
        """Let the timer ring at this moment; afterwards it must not want to ring again at once."""
        self.apply(self.roster.tick(now=self.now))
        assert self.roster.next_due() > self.now, "the timer would ring for ever"

    # Callers.

    @rule(hold=st.none() | PICK, near=st.none() | PICK, how=st.sampled_from(["", "", "pin", "polite"]))
    def enqueue(self, hold: int | None, near: int | None, how: str) -> None:
        waiter = Waiter(
            None if hold is None else self.holds[hold % 4],
            None if near is None else self.holds[near % 4],
            pin=how == "pin" and hold is not None,
            polite=how == "polite",
        )
        if self.roster.stopped:
            try:
                self.roster.enqueue(waiter, now=self.now)
            except PoolClosed:
                return
            raise AssertionError("a stopped roster takes no waiters")
        self.waiting.append(waiter)
        self.apply(self.roster.enqueue(waiter, now=self.now))

    @precondition(lambda self: self.waiting)
    @rule(pick=PICK)
    def withdraw_waiting(self, pick: int) -> None:
        waiter = self.waiting.pop(pick % len(self.waiting))
        self.apply(self.roster.withdraw(waiter, now=self.now))

    @precondition(lambda self: self.unseen)
    @rule(pick=PICK)
    def withdraw_granted(self, pick: int) -> None:
        waiter = self.unseen.pop(pick % len(self.unseen))
        self.apply(self.roster.withdraw(waiter, now=self.now))

    @precondition(lambda self: self.unseen)
    @rule(pick=PICK)
    def accept(self, pick: int) -> None:
        lane = self.unseen.pop(pick % len(self.unseen)).lane
        assert lane is not None
        self.leases.append(lane)

    @precondition(lambda self: self.leases)
    @rule(pick=PICK, how=st.sampled_from(["keep", "drop", "fouled"]))
    def release(self, pick: int, how: str) -> None:
        lane = self.leases.pop(pick % len(self.leases))
        commands = self.roster.release(lane, keep=how == "keep", fouled=how == "fouled", now=self.now)
        self.apply(commands)

    @rule(pick=PICK)
    def let_go(self, pick: int) -> None:
        self.apply(self.roster.let_go(self.holds[pick % 4], now=self.now))

    # The network.

    @precondition(lambda self: self.dials)
    @rule(pick=PICK)
    def opened(self, pick: int) -> None:
        self.apply(self.roster.opened(self.dials.pop(pick % len(self.dials)), now=self.now))

    @precondition(lambda self: self.dials)
    @rule(
        pick=PICK,
        status=st.sampled_from([None, 401, 403, 429, 503]),
        retry_after=st.sampled_from([None, 0.0, 9.0]),
        hopeless=st.booleans(),
    )
    def dial_failed(self, pick: int, status: int | None, retry_after: float | None, hopeless: bool) -> None:
        conn = self.dials.pop(pick % len(self.dials))
        error = DialFailed("no", status=status, retry_after=retry_after, hopeless=hopeless)
        self.apply(self.roster.dial_failed(conn, error, now=self.now))

    @precondition(lambda self: self.all)
    @rule(pick=PICK, useless=st.booleans())
    def lost(self, pick: int, useless: bool) -> None:
        conn = self.all[-1 - pick % len(self.all)]
        self.apply(self.roster.lost(conn, useless=useless, now=self.now))

    @precondition(lambda self: self.fouled())
    @rule(pick=PICK)
    def drained(self, pick: int) -> None:
        lanes = self.fouled()
        self.apply(self.roster.drained(lanes[pick % len(lanes)], now=self.now))

    @precondition(lambda self: self.all)
    @rule(pick=PICK)
    def too_late(self, pick: int) -> None:
        """What is reported of a connection that is closed already changes nothing."""
        conn = self.all[-1 - pick % len(self.all)]
        if conn.state is ConnState.CLOSED:
            assert self.roster.opened(conn, now=self.now) == []
            assert self.roster.dial_failed(conn, DialFailed("no"), now=self.now) == []
            for lane in conn.lanes:
                assert self.roster.drained(lane, now=self.now) == []

    # Time and the operator.

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 20.0, 90.0]))
    def time_passes(self, seconds: float) -> None:
        end, rings = self.now + seconds, 0
        while self.roster.next_due() <= end:
            self.now = max(self.now, self.roster.next_due())
            self.due()
            rings += 1
            assert rings < 1000
        self.now = end

    @rule(seconds=st.sampled_from([30.0, 700.0]))
    def sleeps_through(self, seconds: float) -> None:
        """The computer was suspended: the timer rings late, once."""
        self.now += seconds
        self.overslept = True
        self.due()

    @rule()
    def pause(self) -> None:
        self.roster.pause()

    @rule()
    def resume(self) -> None:
        self.apply(self.roster.resume(now=self.now))

    @rule()
    def rotate(self) -> None:
        self.apply(self.roster.rotate(now=self.now))

    @rule(connections=st.integers(1, 4), idle=st.integers(0, 3))
    def resize(self, connections: int, idle: int) -> None:
        settings = self.roster.settings.with_(max_connections=connections, min_idle=idle)
        self.apply(self.roster.resize(settings, now=self.now))
        assert len(self.roster.ledger.open) + len(self.roster.ledger.dialing) <= self.bound()

    @rule()
    def probe(self) -> None:
        self.apply(self.roster.probe(now=self.now))

    @rule(pick=PICK, names=st.integers(0, 3))
    def narrow(self, pick: int, names: int) -> None:
        conns = list(self.roster.ledger.open)
        if conns:
            self.apply(self.roster.narrow(conns[pick % len(conns)], names, now=self.now))

    @rule()
    def downgrade(self) -> None:
        self.apply(self.roster.downgrade(now=self.now))
        assert not self.roster.lanes.named

    @precondition(lambda self: len(self.all) > 6)
    @rule()
    def stop(self) -> None:
        self.apply(self.roster.stop(now=self.now))
        assert not self.waiting

    @rule()
    def calm(self) -> None:
        """If from now on everything goes well, everybody is served, and soon; but the polite may wait for ever."""
        if self.roster.paused or self.roster.stopped:
            return
        for _round in range(100):
            for conn in tuple(self.dials):
                self.apply(self.roster.opened(conn, now=self.now))
            for lane in self.fouled():
                self.apply(self.roster.drained(lane, now=self.now))
            for waiter in tuple(self.unseen):
                assert waiter.lane is not None
                self.unseen.remove(waiter)
                self.leases.append(waiter.lane)
            for lane in tuple(self.leases):
                self.leases.remove(lane)
                self.apply(self.roster.release(lane, keep=True, now=self.now))
            if all(waiter.polite for waiter in self.waiting) and not self.unseen:
                return
            self.time_passes(1.0)
            self.due()
        raise AssertionError(f"still waiting: {self.waiting}")

    # What must always hold.

    def fouled(self) -> list[Lane]:
        return [lane for conn in self.all for lane in conn.lanes if lane.state is LaneState.FOULED]

    def bound(self) -> int:
        return self.roster.settings.max_connections + self.roster.settings.rotation_overlap

    @invariant()
    def no_lane_is_leased_twice_or_beyond_the_limit(self) -> None:
        held = [lane for lane in [*self.leases, *(waiter.lane for waiter in self.unseen)] if lane is not None]
        alive = [lane for lane in held if lane.conn.state is not ConnState.CLOSED]
        assert len(set(held)) == len(held)
        assert set(alive) == set(self.roster.ledger.leased)
        for conn in self.all:
            busy = {lane for lane in conn.lanes if lane.state in BUSY}
            assert conn.state is ConnState.CLOSED or busy == set(conn.busy)
            assert len(busy) <= conn.in_flight_limit

    @invariant()
    def nobody_waits_while_a_lane_is_free(self) -> None:
        roster = self.roster
        assert list(roster.waiters) == self.waiting
        assert len(self.waiting) <= max(roster.settings.max_waiters, 0)
        if roster.paused or roster.stopped:
            return
        usable = [lane for conn in self.all if conn.grantable for lane in conn.lanes]
        waiting = [waiter for waiter in self.waiting if not waiter.pin]
        for waiter in self.waiting:
            own = waiter.hold.lane if waiter.hold else None
            assert own not in usable or own.state in BUSY, "its own lane is idle"
            assert own is not None or not waiter.pin, "pinned to nothing"
        if waiting:
            assert not [lane for lane in usable if lane.state is LaneState.FREE]
            held = any(lane.state is LaneState.HELD for lane in usable)
            if held and not all(waiter.polite for waiter in waiting):
                patience = roster.settings.dial_patience
                fresh = [conn for conn in self.dials if self.now < conn.since + patience]
                assert len(waiting) <= len(fresh) * roster.lanes.in_flight
                assert roster.next_due() <= min(conn.since + patience for conn in fresh)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """Who waits has a busy lane, a dial or a timer to wait for."""
        if self.waiting and not self.roster.paused:
            hopes = self.roster.ledger.leased or self.fouled() or self.dials
            assert hopes or self.roster.next_due() < math.inf

    @invariant()
    def holds_and_lanes_agree(self) -> None:
        for hold in self.holds:
            lane = hold.lane
            assert lane is None or (lane.hold is hold and lane.conn.state is not ConnState.CLOSED)
        for conn in self.all:
            assert set(conn.claimed) == {lane for lane in conn.lanes if lane.hold is not None}
            for lane in conn.lanes:
                assert lane.hold is None or lane.hold.lane is lane
                if conn.state is not ConnState.CLOSED and lane.state is not LaneState.LEASED:
                    assert (lane.hold is not None) is (lane.state is LaneState.HELD)

    @invariant()
    def free_lanes_with_room_are_apart(self) -> None:
        shelf = self.roster.ledger.shelf
        assert set(shelf.roomy) == {lane for lane in shelf.free if lane.conn.roomy}

    @invariant()
    def every_connection_is_where_its_state_says(self) -> None:
        ledger, roster = self.roster.ledger, self.roster
        listed = {conn: state for state, conns in ledger.conns.items() for conn in conns}
        for conn in self.all:
            assert listed.get(conn, ConnState.CLOSED) is conn.state
            idle = conn.state is ConnState.OPEN and not conn.busy
            assert (conn in ledger.idle) is idle
            shelved = [lane for lane in conn.lanes if lane in ledger.shelf.free or lane in ledger.shelf.held]
            ready = [lane for lane in conn.lanes if lane.state in (LaneState.FREE, LaneState.HELD)]
            assert shelved == (ready if conn.grantable else [])
            if conn.state is ConnState.DRAINING:
                assert conn.busy, "drained, but not closed"
            if conn.state is ConnState.CLOSED:
                assert conn not in roster._rotating
                assert conn not in roster._why
        assert len(listed) == sum(conn.state is not ConnState.CLOSED for conn in self.all)

    @invariant()
    def the_pool_keeps_its_size(self) -> None:
        ledger, settings = self.roster.ledger, self.roster.settings
        assert len(ledger.dialing) <= settings.dial_concurrency
        assert len(ledger.open) + len(ledger.dialing) <= self.bound()
        if self.roster.stopped:
            assert not ledger.open
            assert not ledger.dialing

    @invariant()
    def no_turn_is_placed_on_a_connection_about_to_expire(self) -> None:
        cap = self.roster.endpoint.max_age
        reserve = min(self.roster.settings.reserve, cap * RESERVE_SHARE)
        for conn in self.roster.ledger.open:
            most = cap if self.overslept else cap - reserve / 2
            assert self.now - conn.opened_at <= most + 1e-6

    def teardown(self) -> None:
        if not hasattr(self, "roster"):
            return
        self.apply(self.roster.stop(now=self.now))
        for lane in [*self.leases, *(waiter.lane for waiter in self.unseen)]:
            if lane is not None:
                self.apply(self.roster.release(lane, keep=True, now=self.now))
        for lane in self.fouled():
            self.apply(self.roster.drained(lane, now=self.now))
        ledger: Any = self.roster.ledger
        assert not any(ledger.conns.values())
        assert not ledger.leased
        assert not ledger.idle
        assert not len(ledger.shelf)


RosterMachine.TestCase.settings = hypothesis_settings(
    max_examples=300, stateful_step_count=40, deadline=None, print_blob=True
)
TestRoster = RosterMachine.TestCase

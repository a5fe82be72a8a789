"""How a pool grows, and who gets which lane: the roster's promises, one by one."""

from __future__ import annotations

import math

import pytest

from pool.errors import ConnectionLost, PoolClosed, PoolSaturated
from pool.ledger import Shelf
from pool.placement import Ladder
from pool.serving import TOLD_TO_WAIT
from pool.settings import Lanes
from pool.slots import Hold, Lane, LaneState, Waiter
from tests.support.rosters import desk

TWO_OF_THREE = Lanes(in_flight=2, named=3)


def test_its_own_hot_lane_comes_first() -> None:
    desk_ = desk(max_connections=3)
    ada, bob = Hold("ada"), Hold("bob")
    first, second = desk_.grow(2)
    ada_lane, bob_lane = desk_.converse(ada), desk_.converse(bob)
    assert {ada_lane.conn, bob_lane.conn} == {first, second}
    assert desk_.take(ada) is ada_lane
    assert desk_.take(bob) is bob_lane
    assert ada.lost is None


def test_then_a_lane_nobody_is_hot_on() -> None:
    desk_ = desk(max_connections=3)
    ada = Hold("ada")
    desk_.grow(2)
    ada_lane = desk_.converse(ada)
    assert desk_.take(Hold("bob")) is not ada_lane
    assert ada.lane is ada_lane


def test_then_the_pool_grows_rather_than_steal() -> None:
    desk_ = desk(max_connections=2)
    ada, bob = Hold("ada"), Hold("bob")
    desk_.grow()
    desk_.converse(ada)
    waiter = desk_.ask(bob)
    assert desk_.waits(waiter)
    assert len(desk_.dialled) == 2
    second = desk_.open()
    assert waiter.lane is second.lanes[0]
    assert ada.lane is not None


def test_then_the_lane_that_was_idle_longest_is_stolen() -> None:
    desk_ = desk(max_connections=3)
    desk_.grow(3)
    names = [Hold(name) for name in "abc"]
    for hold in names:
        desk_.converse(hold)
        desk_.now += 1.0
    desk_.converse(names[0])
    lane = names[1].lane
    assert desk_.take(Hold("d")) is lane
    assert [hold.lost for hold in names] == [None, "stolen", None]


def test_idle_longest_holds_across_a_connection_that_was_at_its_limit() -> None:
    desk_ = desk(TWO_OF_THREE, max_connections=1)
    desk_.grow()
    old, young = Hold("old"), Hold("young")
    third = Hold("third")
    desk_.converse(old)
    desk_.now += 1.0
    desk_.converse(young)
    desk_.now += 1.0
    busy = [
        desk_.take(young),
        desk_.take(third),
    ]  # both slots in use: even the idle third lane is out of reach
    desk_.now += 1.0
    desk_.give(busy[0])
    desk_.now += 1.0
    desk_.give(busy[1])
    lane = old.lane
    assert desk_.take(Hold("new")) is lane
    assert (old.lost, young.lost) == ("stolen", None)


def test_nobody_takes_the_lane_that_one_behind_it_is_hot_on() -> None:
    desk_ = desk(max_connections=2)
    desk_.grow(2)
    ada, bob = Hold("ada"), Hold("bob")
    desk_.converse(ada)
    desk_.now += 1.0
    desk_.converse(bob)
    ada_lane, bob_lane = ada.lane, bob.lane
    desk_.roster.pause()
    stranger, returns = desk_.ask(Hold("stranger")), desk_.ask(ada)
    desk_.did(desk_.roster.resume(now=desk_.now))
    assert returns.lane is ada_lane
    assert stranger.lane is bob_lane


def test_a_fork_starts_beside_its_parent_when_it_can() -> None:
    desk_ = desk(TWO_OF_THREE, max_connections=3)
    desk_.grow(2)
    parent = Hold("parent")
    lane = desk_.converse(parent)
    fork = desk_.take(Hold("fork"), near=parent)
    assert fork.conn is lane.conn
    assert fork is not lane
    full = desk_.take(Hold("another"), near=parent)
    assert full.conn is lane.conn, "the parent's own lane is idle, so one slot was left"
    assert desk_.take(Hold("third"), near=parent).conn is not lane.conn


def test_a_fork_goes_elsewhere_rather_than_rob_a_neighbour_of_its_parent() -> None:
    desk_ = desk(Lanes(in_flight=2, named=2), max_connections=2)
    desk_.grow(2)
    parent, neighbour = Hold("parent"), Hold("neighbour")
    lane = desk_.converse(parent)
    desk_.give(desk_.take(neighbour, near=parent))
    assert desk_.take(Hold("fork"), near=parent).conn is not lane.conn
    assert neighbour.lost is None


def test_last_in_first_out_leaves_the_rest_to_age() -> None:
    desk_ = desk(max_connections=3)
    conns = desk_.grow(3)
    lanes = [desk_.take() for _ in conns]
    for lane in lanes:
        desk_.give(lane)
    for _ in range(5):
        lane = desk_.take()
        assert lane is lanes[-1]
        desk_.give(lane)


def test_a_dial_serves_as_many_waiters_as_it_brings_lanes() -> None:
    desk_ = desk(Lanes(in_flight=4, named=8), max_connections=3)
    waiters = [desk_.ask() for _ in range(4)]
    assert len(desk_.dialled) == 1
    fifth = desk_.ask()
    assert len(desk_.dialled) == 2
    desk_.open(desk_.dialled[0])
    assert [waiter.lane is not None for waiter in [*waiters, fifth]] == [True] * 4 + [False]


def test_a_waiter_waits_for_a_fresh_connection_only_so_long() -> None:
    desk_ = desk(max_connections=3, dial_patience=1.0)
    ada, bob = Hold("ada"), Hold("bob")
    desk_.grow()
    lane = desk_.converse(ada)
    waiter = desk_.ask(bob)
    desk_.pass_time(0.9)
    assert desk_.waits(waiter)
    desk_.pass_time(0.2)
    assert waiter.lane is lane
    assert ada.lost == "stolen"
    assert len(desk_.dialled) == 2, "a slow dial is no reason to dial once more"


def test_without_anything_to_steal_it_goes_on_waiting_for_the_slow_dial() -> None:
    desk_ = desk(max_connections=3, dial_patience=1.0)
    waiter = desk_.ask()
    desk_.pass_time(10.0)
    desk_.tick()
    assert desk_.waits(waiter)
    assert len(desk_.dialled) == 1
    desk_.open()
    assert waiter.lane is not None


def test_dials_of_different_age_do_not_ring_the_timer_for_ever() -> None:
    desk_ = desk(max_connections=4, dial_patience=1.0)
    desk_.grow(2)
    ada_lane, bob_lane = desk_.take(Hold("ada")), desk_.take(Hold("bob"))
    early = desk_.ask()
    desk_.pass_time(0.5)
    late = desk_.ask()
    desk_.give(ada_lane)
    desk_.now += 0.1
    desk_.give(bob_lane)
    assert (early.lane, late.lane) == (None, None)
    desk_.pass_time(0.5)
    assert (early.lane, late.lane) == (ada_lane, None), "only the first dial is overdue"
    desk_.pass_time(0.5)
    assert late.lane is bob_lane


def test_those_who_came_first_are_served_first_and_the_last_wait_for_the_dial() -> None:
    desk_ = desk(max_connections=2, dial_patience=5.0)
    desk_.grow()
    ada_lane = desk_.converse(Hold("ada"))
    desk_.roster.pause()
    first, second = desk_.ask(), desk_.ask()
    desk_.did(desk_.roster.resume(now=desk_.now))
    assert first.lane is ada_lane
    assert second.lane is None
    desk_.open()
    assert second.lane is not None


def test_a_line_takes_the_longest_idle_lanes_in_order() -> None:
    desk_ = desk(max_connections=3)
    desk_.grow(3)
    lanes = []
    for name in "abc":
        lanes.append(desk_.converse(Hold(name)))
        desk_.now += 1.0
    desk_.roster.pause()
    waiters = [desk_.ask(), desk_.ask()]
    desk_.did(desk_.roster.resume(now=desk_.now))
    assert [waiter.lane for waiter in waiters] == lanes[:2]


def test_when_the_pace_forbids_a_dial_it_steals() -> None:
    desk_ = desk(max_connections=3, dial_burst=1, dial_rate=0.1)
    ada = Hold("ada")
    desk_.grow()
    lane = desk_.converse(ada)
    assert desk_.take(Hold("bob")) is lane


def test_when_the_pace_forbids_a_dial_and_nothing_is_idle_the_dial_comes_in_time() -> None:
    desk_ = desk(max_connections=3, dial_burst=1, dial_rate=0.1)
    desk_.grow()
    desk_.take()
    waiter = desk_.ask()
    assert desk_.waits(waiter)
    desk_.pass_time(9.9)
    assert len(desk_.dialled) == 1
    desk_.pass_time(0.2)
    assert len(desk_.dialled) == 2


def test_waiters_are_served_in_order() -> None:
    desk_ = desk(max_connections=1)
    desk_.grow()
    lane = desk_.take()
    waiters = [desk_.ask() for _ in range(5)]
    for waiter in waiters:
        desk_.give(lane)
        assert waiter.lane is lane
    assert desk_.granted[-5:] == waiters


def test_warm_up_keeps_a_minimum_of_idle_lanes() -> None:
    desk_ = desk(max_connections=4, min_idle=2)
    desk_.did(desk_.roster.resume(now=0.0))
    assert len(desk_.dialled) == 2
    desk_.open(), desk_.open()
    desk_.take()
    assert len(desk_.dialled) == 3, "one lane in use, two idle again"
    desk_.open()
    desk_.take(), desk_.take()
    assert len(desk_.dialled) == 4, "the maximum"


def test_warm_up_counts_lanes_and_not_connections() -> None:
    desk_ = desk(Lanes(in_flight=4, named=4), max_connections=4, min_idle=6)
    desk_.did(desk_.roster.resume(now=0.0))
    assert len(desk_.dialled) == 2


def test_a_dial_that_somebody_waits_for_is_no_warm_up() -> None:
    desk_ = desk(max_connections=4, min_idle=1)
    desk_.ask()
    assert len(desk_.dialled) == 2


def test_the_waiting_line_has_an_end() -> None:
    desk_ = desk(max_connections=1, max_waiters=2)
    desk_.grow()
    lane = desk_.take()
    waiting = [desk_.ask(), desk_.ask()]
    over = desk_.ask()
    assert isinstance(over.error, PoolSaturated)
    assert (over.error.waiting, over.error.limit) == (2, 2)
    assert str(over.error) == (
        "2 waiters, limit 2 (dialing=0 open=1 leaving=0 draining=0 leased=1 idle=0 waiting=3)"
    )
    desk_.give(lane)
    assert waiting[0].lane is lane


def test_no_line_at_all_still_grants_what_is_idle() -> None:
    desk_ = desk(max_connections=1, max_waiters=0)
    refused = desk_.ask()
    assert isinstance(refused.error, PoolSaturated)
    desk_.open()
    assert desk_.take()


def test_a_pin_waits_for_its_lane_alone() -> None:
    desk_ = desk(TWO_OF_THREE, max_connections=1)
    desk_.grow()
    ada, bob = Hold("ada"), Hold("bob")
    lane = desk_.converse(ada)
    assert desk_.take(ada, pin=True) is lane
    desk_.give(lane)
    lanes = [desk_.take(bob), desk_.take(Hold("eve"))]
    pinned = desk_.ask(ada, pin=True)
    assert pinned.lane is None, "the connection is at its limit"
    desk_.give(lanes[0])
    assert pinned.lane is lane


def test_a_pin_is_refused_when_its_lane_is_gone() -> None:
    desk_ = desk(max_connections=1)
    (conn,) = desk_.grow()
    ada = Hold("ada")
    desk_.converse(ada)
    desk_.lose(conn)
    pinned = desk_.ask(ada, pin=True)
    assert isinstance(pinned.error, ConnectionLost)
    assert str(pinned.error) == "the pinned lane is gone (lost)"
    assert pinned.error.sent is False
    never = desk_.ask(Hold("new"), pin=True)
    assert str(never.error) == "the pinned lane is gone (never had one)"


def test_a_waiting_pin_is_told_when_its_lane_goes() -> None:
    desk_ = desk(max_connections=1)
    (conn,) = desk_.grow()
    ada = Hold("ada")
    desk_.take(ada)
    pinned = desk_.ask(ada, pin=True)
    assert (pinned.lane, pinned.error) == (None, None)
    desk_.lose(conn)
    assert isinstance(pinned.error, ConnectionLost)


def test_a_waiting_pin_is_in_nobodys_way() -> None:
    desk_ = desk(Lanes(in_flight=2, named=2), max_connections=1)
    desk_.grow()
    ada, bob = Hold("ada"), Hold("bob")
    ada_lane = desk_.take(ada)
    pinned = desk_.ask(ada, pin=True)
    desk_.converse(bob)
    bob_lane = bob.lane
    assert desk_.take() is bob_lane
    assert (bob.lost, desk_.waits(pinned)) == ("stolen", True)
    desk_.give(ada_lane)
    assert pinned.lane is ada_lane


def test_a_line_is_served_at_once_from_what_is_idle() -> None:
    desk_ = desk(max_connections=3)
    desk_.grow(3)
    desk_.roster.pause()
    waiters = [desk_.ask(), desk_.ask()]
    desk_.did(desk_.roster.resume(now=desk_.now))
    assert desk_.granted[-2:] == waiters
    assert len(desk_.roster.ledger.shelf) == 1


def test_another_placement_may_leave_some_waiting() -> None:
    class Strict(Ladder):
        """Takes from nobody whose name is not on the list."""

        def instead(self, shelf: Shelf, waiter: Waiter, *, now: float) -> Lane | float:
            return super().instead(shelf, waiter, now=now) if waiter.holder == "chief" else math.inf

    desk_ = desk(max_connections=1)
    desk_.roster._serving.placement = Strict()
    desk_.grow()
    lane = desk_.converse(Hold("ada"))
    patient = desk_.ask()
    assert desk_.waits(patient)
    chief = Waiter(holder="chief")
    desk_.did(desk_.roster.enqueue(chief, now=desk_.now))
    assert chief.lane is lane
    assert desk_.waits(patient)


def test_those_who_had_better_wait_are_asked_again_when_they_said() -> None:
    class Patient(Ladder):
        """Robs nobody before five seconds have passed."""

        asked = 0

        def instead(self, shelf: Shelf, waiter: Waiter, *, now: float) -> Lane | float:
            self.asked += 1
            return super().instead(shelf, waiter, now=now) if now >= 5.0 else 5.0

    desk_ = desk(Lanes(in_flight=1, named=2), max_connections=1)
    desk_.grow()
    lane = desk_.converse(Hold("ada"))
    desk_.now += 1.0
    desk_.converse(Hold("bob"))
    patient = Patient()
    desk_.roster._serving.placement = patient
    desk_.roster.pause()
    waiters = [desk_.ask() for _ in range(3 * TOLD_TO_WAIT)]
    desk_.did(desk_.roster.resume(now=desk_.now))
    assert patient.asked == TOLD_TO_WAIT, "a long line costs no more than that"
    desk_.pass_time(3.9)
    assert desk_.waits(waiters[0])
    desk_.pass_time(0.2)
    assert waiters[0].lane is lane


def test_the_polite_rob_nobody_and_are_in_nobodys_way() -> None:
    desk_ = desk(max_connections=1)
    desk_.grow()
    ada = Hold("ada")
    lane = desk_.converse(ada)
    polite = Waiter(polite=True)
    desk_.did(desk_.roster.enqueue(polite, now=desk_.now))
    assert desk_.waits(polite)
    assert desk_.take() is lane
    desk_.give(lane)
    assert polite.lane is lane


def test_a_pin_without_a_hold_is_refused() -> None:
    desk_ = desk()
    desk_.grow()
    assert isinstance(desk_.ask(pin=True).error, ConnectionLost)


def test_a_lane_granted_to_a_waiter_that_gave_up_goes_to_the_next() -> None:
    desk_ = desk(max_connections=1)
    desk_.grow()
    lane = desk_.take()
    first, second = desk_.ask(), desk_.ask()
    desk_.give(lane)
    assert first.lane is lane
    desk_.did(desk_.roster.withdraw(first, now=desk_.now))
    assert second.lane is lane


def test_a_conversation_speaks_on_one_lane_at_a_time() -> None:
    desk_ = desk(max_connections=2)
    desk_.grow(2)
    ada = Hold("ada")
    first = desk_.take(ada)
    second = desk_.take(ada)
    assert ada.lane is second
    assert ada.lost == "moved"
    desk_.give(first)
    desk_.give(second)
    assert (first.state, second.state) == (LaneState.FREE, LaneState.HELD)


def test_a_conversation_that_is_over_leaves_its_lane_free() -> None:
    desk_ = desk(max_connections=1)
    desk_.grow()
    ada = Hold("ada")
    lane = desk_.converse(ada)
    desk_.did(desk_.roster.let_go(ada, now=desk_.now))
    assert (lane.state, ada.lane, ada.lost) == (LaneState.FREE, None, "closed")
    assert desk_.roster.let_go(ada, now=desk_.now) == []


def test_a_pause_grants_nothing_and_refuses_nobody() -> None:
    desk_ = desk(max_connections=1)
    desk_.grow()
    desk_.roster.pause()
    waiter = desk_.ask()
    assert desk_.waits(waiter)
    desk_.did(desk_.roster.resume(now=desk_.now))
    assert waiter.lane is not None


def test_a_stop_refuses_those_who_wait_and_those_who_come() -> None:
    desk_ = desk(max_connections=1)
    desk_.grow()
    lane = desk_.take()
    waiter = desk_.ask()
    desk_.did(desk_.roster.stop(now=desk_.now))
    assert isinstance(waiter.error, PoolClosed)
    with pytest.raises(PoolClosed, match="closed or draining"):
        desk_.roster.enqueue(Waiter(), now=desk_.now)
    assert desk_.closed == []
    desk_.give(lane)
    assert [why for _conn, why in desk_.closed] == ["closed"]
    assert desk_.roster.next_due() > desk_.now


def test_nobody_is_robbed_while_more_dials_can_follow() -> None:
    desk_ = desk(max_connections=3, dial_concurrency=1, dial_patience=1.0)
    desk_.grow()
    lane = desk_.converse(Hold("ada"))
    first, second = desk_.ask(Hold("bob")), desk_.ask(Hold("eve"))
    assert (desk_.waits(first), desk_.waits(second)) == (True, True)
    desk_.open()
    desk_.open()
    assert lane not in (first.lane, second.lane)
    assert lane.hold is not None

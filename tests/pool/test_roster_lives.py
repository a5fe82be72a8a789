"""How connections live and die: dial, failure, rotation, idleness, draining, resizing, downgrading."""

from __future__ import annotations

import itertools
import math

import pytest

from pool.errors import DialFailed
from pool.roster import spread
from pool.settings import Lanes, PoolSettings
from pool.slots import ConnState, Hold, LaneState, Waiter
from tests.support.rosters import desk, settings

TWO_OF_THREE = Lanes(in_flight=2, named=3)


def test_lanes_have_the_names_that_the_endpoint_allows() -> None:
    (multi,) = desk(Lanes(in_flight=2, named=3)).grow()
    assert [lane.stream_id for lane in multi.lanes] == ["lane-01", "lane-02", "lane-03"]
    assert [str(lane) for lane in multi.lanes] == ["c1/lane-01", "c1/lane-02", "c1/lane-03"]
    (single,) = desk().grow()
    assert [(lane.stream_id, str(lane)) for lane in single.lanes] == [(None, "c1/lane")]
    assert str(single) == "c1"


def test_never_more_in_flight_than_the_endpoint_allows() -> None:
    desk_ = desk(TWO_OF_THREE, max_connections=1)
    desk_.grow()
    lanes = [desk_.take(), desk_.take()]
    third = desk_.ask()
    assert third.lane is None
    desk_.give(lanes[0], fouled=True)
    assert third.lane is None, "an abandoned response is still in flight"
    desk_.did(desk_.roster.drained(lanes[0], now=desk_.now))
    assert third.lane is not None


# Dials that fail.


def test_waiters_are_told_after_so_many_failures_in_a_row() -> None:
    desk_ = desk(dial_attempts=3, max_connections=1)
    waiter = desk_.ask()
    for _ in range(2):
        desk_.fail(status=503)
        assert waiter.error is None
        desk_.pass_time(2.0)
    desk_.fail(status=503)
    assert isinstance(waiter.error, DialFailed)
    assert waiter.error.status == 503


def test_waiters_are_told_at_once_when_it_is_hopeless() -> None:
    desk_ = desk(max_connections=1)
    waiter = desk_.ask()
    desk_.fail(status=401, hopeless=True)
    assert isinstance(waiter.error, DialFailed)


def test_a_waiter_that_has_a_connection_to_wait_for_is_not_told() -> None:
    desk_ = desk(max_connections=2)
    desk_.grow()
    lane = desk_.take()
    waiter = desk_.ask()
    desk_.fail(hopeless=True)
    assert waiter.error is None
    desk_.give(lane)
    assert waiter.lane is lane


def test_while_another_dial_is_under_way_nobody_is_told() -> None:
    desk_ = desk(max_connections=2)
    waiters = [desk_.ask(), desk_.ask()]
    desk_.fail(hopeless=True)
    assert [waiter.error for waiter in waiters] == [None, None]
    desk_.open()
    assert waiters[0].lane is not None


def test_each_failure_holds_the_next_dial_back_for_longer() -> None:
    desk_ = desk(dial_attempts=100, max_connections=1)
    desk_.ask()
    waits = []
    for _ in range(9):
        desk_.fail()
        waits.append(desk_.roster.next_due() - desk_.now)
        desk_.pass_time(60.0)
    assert waits[0] < 0.35
    assert waits[-1] > 20.0
    assert max(waits) <= 30.0 * 1.25


def test_an_outage_with_nobody_waiting_dials_one_at_a_time_and_ever_more_slowly() -> None:
    desk_ = desk(min_idle=1, max_connections=8)
    desk_.did(desk_.roster.resume(now=0.0))
    while desk_.now < 600.0:
        assert len(desk_.roster.ledger.dialing) == 1
        desk_.fail()
        desk_.pass_time(40.0)
    assert len(desk_.dialled) <= 17


def test_a_server_that_says_when_is_believed() -> None:
    desk_ = desk(max_connections=1)
    desk_.ask()
    desk_.fail(status=429, retry_after=90.0)
    assert desk_.roster.next_due() == 90.0


def test_what_is_reported_of_a_connection_given_up_in_the_meantime_changes_nothing() -> None:
    desk_ = desk(max_connections=1)
    desk_.ask()
    (conn,) = desk_.dialled
    desk_.did(desk_.roster.stop(now=0.0))
    assert desk_.closed == [(conn, "closed")]
    desk_.open(conn)
    desk_.fail(conn)
    desk_.lose(conn)
    assert conn.state is ConnState.CLOSED
    assert desk_.roster.pacer.failures == 0


# Rotation.


def test_a_connection_retires_well_before_the_servers_cap() -> None:
    desk_ = desk(max_age=3600.0, reserve=300.0, idle_timeout=math.inf)
    (conn,) = desk_.grow()
    desk_.pass_time(3299.0)
    assert conn.state is ConnState.OPEN
    desk_.pass_time(2.0)
    assert desk_.closed == [(conn, "rotated")]


def test_a_short_cap_still_leaves_a_life() -> None:
    desk_ = desk(max_age=60.0, reserve=300.0, jitter=120.0)
    (conn,) = desk_.grow()
    assert 60.0 - 15.0 - 15.0 <= conn.retire_at <= 60.0 - 15.0


def test_jitter_spreads_what_was_dialled_together() -> None:
    desk_ = desk(max_connections=50, dial_concurrency=50, jitter=120.0)
    lines = sorted(conn.retire_at for conn in desk_.grow(50))
    assert 3180.0 <= lines[0] < 3200.0
    assert 3280.0 < lines[-1] <= 3300.0
    assert max(after - before for before, after in itertools.pairwise(lines)) < 20.0


def test_a_big_pool_takes_as_long_to_rotate_as_its_dials_take() -> None:
    big = PoolSettings(max_connections=4000, dial_rate=20.0, rotation_overlap=2, jitter=120.0)
    assert spread(big, 3600.0) == 500.0, "eight a second: two at a time, each a quarter of a second"
    assert spread(big.with_(rotation_overlap=100), 3600.0) == 400.0, "ten a second: half of twenty"
    assert spread(big.with_(max_connections=100), 3600.0) == 120.0, "small ones in the jitter"
    assert spread(big.with_(max_connections=100_000), 3600.0) == 900.0, "a quarter of the cap, at most"
    assert spread(big.with_(jitter=0.0), 3600.0) == 0.0, "unless nobody wants it"


def test_the_successor_comes_first() -> None:
    desk_ = desk(max_connections=1, idle_timeout=math.inf)
    (old,) = desk_.grow()
    ada = Hold("ada")
    lane = desk_.converse(ada)
    desk_.pass_time(3301.0)
    assert len(desk_.dialled) == 2, "above the maximum, for as long as the rotation lasts"
    assert desk_.take(ada) is lane, "until then the old one serves"
    desk_.give(lane)
    new = desk_.open()
    assert desk_.closed == [(old, "rotated")]
    assert (ada.lane, ada.lost) == (None, "rotated")
    assert desk_.take(ada).conn is new


def test_who_is_hot_on_a_leaving_connection_keeps_its_lane_until_it_moves() -> None:
    desk_ = desk(max_connections=1, idle_timeout=math.inf, dial_patience=0.0)
    desk_.stay = True
    (old,) = desk_.grow()
    ada, bob = Hold("ada"), Hold("bob")
    lane = desk_.converse(ada)
    desk_.pass_time(3301.0)
    new = desk_.open()
    assert (desk_.left, ada.leaving, old.state) == ([ada], True, ConnState.LEAVING)
    assert desk_.take(bob).conn is new, "nobody else gets on"
    assert desk_.take(ada) is lane
    desk_.give(lane)
    assert desk_.left == [ada, ada], "asked once more after each turn"
    desk_.did(desk_.roster.let_go(ada, "moved", now=desk_.now))
    assert desk_.closed == [(old, "rotated")]


def test_who_does_not_move_loses_its_lane_at_the_deadline() -> None:
    desk_ = desk(max_connections=1, max_age=3600.0, reserve=300.0, idle_timeout=math.inf)
    desk_.stay = True
    (old,) = desk_.grow()
    ada = Hold("ada")
    desk_.converse(ada)
    desk_.pass_time(3301.0)
    desk_.open()
    desk_.pass_time(147.0)
    assert ada.leaving
    desk_.pass_time(4.0)
    assert (ada.lane, ada.lost, desk_.closed) == (None, "rotated", [(old, "rotated")])
    assert desk_.left == [ada, ada], "told again, so that another lane may remember it before it is back"


def test_nobody_looks_for_another_lane_where_the_pool_wants_fewer_connections() -> None:
    desk_ = desk(max_connections=1, min_idle=0, idle_timeout=60.0)
    desk_.stay = True
    desk_.grow()
    desk_.converse(Hold("ada"))
    desk_.pass_time(61.0)
    assert [why for _, why in desk_.closed] == ["idle"]
    assert desk_.left == []


def test_a_polite_waiter_takes_no_lane_that_another_is_hot_on() -> None:
    desk_ = desk(max_connections=1)
    desk_.grow()
    lane = desk_.converse(Hold("ada"))
    polite = Waiter(polite=True)
    desk_.did(desk_.roster.enqueue(polite, now=desk_.now))
    assert desk_.waits(polite)
    desk_.did(desk_.roster.let_go(lane.hold or Hold(), now=desk_.now))
    assert polite.lane is lane


def test_who_was_hot_on_a_lost_connection_is_told() -> None:
    desk_ = desk(max_connections=1)
    (conn,) = desk_.grow()
    ada = Hold("ada")
    desk_.converse(ada)
    desk_.lose(conn)
    assert (desk_.left, ada.lane, ada.lost) == ([ada], None, "lost")


def test_a_response_in_flight_is_let_to_its_end() -> None:
    desk_ = desk(max_connections=1)
    (old,) = desk_.grow()
    ada = Hold("ada")
    lane = desk_.take(ada)
    desk_.pass_time(3301.0)
    desk_.open()
    assert old.state is ConnState.LEAVING
    assert desk_.closed == []
    desk_.give(lane)
    assert desk_.closed == [(old, "rotated")]
    assert ada.lost == "rotated"


def test_the_old_one_is_drained_in_time_even_if_no_successor_comes() -> None:
    desk_ = desk(max_connections=1, max_age=3600.0, reserve=300.0)
    (old,) = desk_.grow()
    desk_.take(Hold("ada"))
    desk_.pass_time(3300.0 + 149.0)
    assert old in desk_.roster.ledger.open
    desk_.pass_time(2.0)
    assert old.state is ConnState.DRAINING


def test_a_successor_that_fails_is_dialled_again() -> None:
    desk_ = desk(max_connections=1)
    (old,) = desk_.grow()
    desk_.take(Hold("ada"))
    desk_.pass_time(3301.0)
    desk_.fail()
    desk_.pass_time(1.0)
    desk_.open()
    assert old.state is ConnState.LEAVING


def test_few_successors_at_a_time() -> None:
    desk_ = desk(max_connections=5, rotation_overlap=2)
    desk_.grow(5)
    for index in range(5):
        desk_.take(Hold(str(index)))
    before = len(desk_.dialled)
    desk_.did(desk_.roster.rotate(now=desk_.now))
    assert len(desk_.dialled) == before + 2
    desk_.open()
    assert len(desk_.dialled) == before + 3
    for _ in range(4):
        desk_.open()
    ledger = desk_.roster.ledger
    assert (len(ledger.open), len(ledger.dialing), len(ledger.leaving)) == (5, 0, 5)


def test_a_connection_without_conversations_needs_no_successor() -> None:
    desk_ = desk(max_connections=2)
    (conn,) = desk_.grow()
    desk_.did(desk_.roster.rotate(now=desk_.now))
    assert desk_.closed == [(conn, "rotated")]
    assert len(desk_.dialled) == 1


def test_asking_for_a_rotation_never_postpones_the_one_that_is_due() -> None:
    desk_ = desk(max_connections=1, max_age=60.0, reserve=10.0, dial_timeout=15.0)
    (conn,) = desk_.grow()
    desk_.take(Hold("ada"))
    desk_.pass_time(49.9)
    desk_.did(desk_.roster.rotate(now=desk_.now))
    desk_.pass_time(5.2)
    assert conn.state is ConnState.DRAINING
    desk_.did(desk_.roster.rotate(now=desk_.now))


def test_a_timer_that_rang_late_drains_at_once() -> None:
    desk_ = desk(max_connections=1, max_age=3600.0)
    (conn,) = desk_.grow()
    desk_.take(Hold("ada"))
    desk_.now = 4000.0
    desk_.tick()
    assert conn.state is ConnState.DRAINING


def test_a_server_that_says_it_is_time_is_obeyed() -> None:
    desk_ = desk(TWO_OF_THREE, max_connections=1)
    (conn,) = desk_.grow()
    ada = Hold("ada")
    desk_.converse(ada)
    lane = desk_.take(Hold("bob"))
    for _ in range(2):
        desk_.did(desk_.roster.retire(conn, "expired", now=desk_.now))
    assert ada.lost == "expired"
    assert desk_.closed == []
    desk_.give(lane)
    assert desk_.closed == [(conn, "expired")]


# Idleness, abandonment, loss.


def test_what_is_idle_too_long_is_closed_down_to_the_minimum() -> None:
    desk_ = desk(max_connections=3, idle_timeout=600.0)
    first, second, third = desk_.grow(3)
    desk_.did(desk_.roster.resize(desk_.roster.settings.with_(min_idle=1), now=0.0))
    desk_.pass_time(601.0)
    assert desk_.closed == [(first, "idle"), (second, "idle")]
    assert third.state is ConnState.OPEN


def test_use_makes_young_again() -> None:
    desk_ = desk(max_connections=1, idle_timeout=600.0)
    (conn,) = desk_.grow()
    desk_.pass_time(500.0)
    desk_.give(desk_.take())
    desk_.pass_time(500.0)
    assert conn in desk_.roster.ledger.open
    desk_.pass_time(101.0)
    assert conn.state is ConnState.CLOSED


def test_an_abandoned_response_that_ends_gives_its_lane_back() -> None:
    desk_ = desk(max_connections=1, abandon_timeout=20.0)
    desk_.grow()
    ada = Hold("ada")
    lane = desk_.take(ada)
    desk_.give(lane, fouled=True)
    assert (lane.state, ada.lost) == (LaneState.FOULED, "failed")
    waiter = desk_.ask()
    desk_.did(desk_.roster.drained(lane, now=desk_.now))
    assert waiter.lane is lane
    desk_.pass_time(30.0)
    assert lane.state is LaneState.LEASED


def test_an_abandoned_response_that_does_not_end_costs_the_connection() -> None:
    desk_ = desk(TWO_OF_THREE, max_connections=1, abandon_timeout=20.0)
    (conn,) = desk_.grow()
    abandoned, other = desk_.take(), desk_.take()
    desk_.give(abandoned, fouled=True)
    desk_.pass_time(19.0)
    assert conn.state is ConnState.OPEN
    desk_.pass_time(2.0)
    assert (conn.state, abandoned.state) == (ConnState.DRAINING, LaneState.DEAD)
    desk_.give(other)
    assert desk_.closed == [(conn, "abandoned")]


def test_a_lane_abandoned_twice_has_the_whole_time_twice() -> None:
    desk_ = desk(max_connections=1, abandon_timeout=20.0)
    (conn,) = desk_.grow()
    lane = desk_.take()
    desk_.give(lane, fouled=True)
    desk_.pass_time(15.0)
    desk_.did(desk_.roster.drained(lane, now=desk_.now))
    desk_.give(desk_.take(), fouled=True)
    desk_.pass_time(15.0)
    assert lane.state is LaneState.FOULED
    desk_.pass_time(6.0)
    assert conn.state is ConnState.CLOSED


def test_a_kept_lane_that_was_not_worth_keeping_is_free() -> None:
    desk_ = desk(max_connections=1)
    desk_.grow()
    ada = Hold("ada")
    lane = desk_.take(ada)
    desk_.give(lane, keep=False)
    assert (lane.state, ada.lane, ada.lost) == (LaneState.FREE, None, "failed")


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("fouled", [True, False])
def test_giving_back_what_is_lost_already_changes_nothing(keep: bool, fouled: bool) -> None:
    desk_ = desk(max_connections=1)
    (conn,) = desk_.grow()
    ada = Hold("ada")
    lane = desk_.take(ada)
    desk_.lose(conn)
    assert (ada.lane, ada.lost) == (None, "lost")
    assert desk_.roster.release(lane, keep=keep, fouled=fouled, now=desk_.now) == []
    assert str(desk_.roster) == "dialing=0 open=0 leaving=0 draining=0 leased=0 idle=0 waiting=0"


def test_a_lost_connection_is_replaced_for_those_who_wait() -> None:
    desk_ = desk(max_connections=1)
    (conn,) = desk_.grow()
    desk_.take()
    waiter = desk_.ask()
    desk_.lose(conn)
    assert len(desk_.dialled) == 2
    desk_.open()
    assert waiter.lane is not None


# The operator.


def test_resizing_down_drains_the_longest_idle_first() -> None:
    desk_ = desk(max_connections=4)
    desk_.grow(3)
    lane = desk_.take()
    idle = list(desk_.roster.ledger.idle)
    desk_.did(desk_.roster.resize(settings(max_connections=2), now=desk_.now))
    assert desk_.closed == [(idle[0], "resized")]
    desk_.did(desk_.roster.resize(settings(max_connections=1), now=desk_.now))
    assert desk_.closed[1:] == [(idle[1], "resized")]
    assert lane.conn.state is ConnState.OPEN


def test_resizing_down_gives_up_dials_first() -> None:
    desk_ = desk(max_connections=4)
    (conn,) = desk_.grow()
    desk_.take()
    waiters = [desk_.ask() for _ in range(3)]
    dials = desk_.dialled[-3:]
    desk_.did(desk_.roster.resize(settings(max_connections=2), now=desk_.now))
    assert desk_.closed == [(dials[2], "resized"), (dials[1], "resized")]
    desk_.open(dials[0])
    assert waiters[0].lane is not None
    assert conn.state is ConnState.OPEN


def test_resizing_up_serves_those_who_wait() -> None:
    desk_ = desk(max_connections=1)
    desk_.grow()
    desk_.take()
    desk_.ask()
    assert len(desk_.dialled) == 1
    desk_.did(desk_.roster.resize(settings(max_connections=2), now=desk_.now))
    assert len(desk_.dialled) == 2


def test_a_new_dial_rate_holds_at_once() -> None:
    desk_ = desk(dial_rate=100.0)
    desk_.did(desk_.roster.resize(settings(dial_rate=2.0, dial_burst=1), now=0.0))
    assert desk_.roster.pacer.rate == 2.0
    desk_.did(desk_.roster.resize(settings(dial_rate=50.0), now=0.0))
    assert desk_.roster.pacer.rate == 50.0


def test_an_endpoint_that_refuses_lane_names_gets_single_lanes() -> None:
    desk_ = desk(TWO_OF_THREE, max_connections=2)
    desk_.grow()
    lane = desk_.take()
    desk_.did(desk_.roster.downgrade(now=desk_.now))
    assert lane.conn.state is ConnState.DRAINING
    waiter = desk_.ask()
    new = desk_.open()
    assert [lane.stream_id for lane in new.lanes] == [None]
    assert waiter.lane is new.lanes[0]
    assert desk_.roster.downgrade(now=desk_.now) == [], "the second time there is nothing to do"


def test_an_endpoint_that_takes_fewer_lane_names_gets_fewer() -> None:
    desk_ = desk(Lanes(in_flight=4, named=8), max_connections=2)
    (conn,) = desk_.grow()
    lane = desk_.take()
    desk_.did(desk_.roster.narrow(conn, 3, now=desk_.now))
    assert conn.state is ConnState.DRAINING
    assert desk_.roster.lanes == Lanes(in_flight=3, named=3)
    desk_.give(lane)
    assert desk_.closed == [(conn, "narrowed")]
    for names in (0, 3, 9):
        desk_.did(desk_.roster.narrow(conn, names, now=desk_.now))
    assert desk_.roster.lanes == Lanes(in_flight=3, named=3), "never wider, never nothing"

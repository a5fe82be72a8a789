"""Who gives up its lane, and what that is expected to cost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.ledger import Shelf
from pool.slots import Conn, ConnState, Hold, Lane, LaneState, Waiter
from scheduler.estimate import Average, Estimates, Line, ReplayCost
from scheduler.policy import REPLAYS, SOON, SURELY, ByCost, damage, stays_away


def held(*claims: tuple[float, float, float]) -> tuple[Shelf, list[Lane]]:
    """Return a shelf of idle lanes whose holds have this worth and gap, idle since then."""
    shelf, lanes = Shelf(), []
    for number, (worth, gap, since) in enumerate(claims):
        conn = Conn(number)
        conn.state = ConnState.OPEN
        lane = Lane(conn, 0, None)
        lane.state, lane.since, lane.hold = LaneState.HELD, since, Hold(str(number))
        lane.hold.worth, lane.hold.gap = worth, gap
        shelf.put(lane)
        lanes.append(lane)
    return shelf, lanes


def asked(shelf: Shelf, *, now: float = 0.0) -> tuple[Lane | float, Waiter]:
    waiter = Waiter()
    return ByCost().instead(shelf, waiter, now=now), waiter


def test_a_lane_that_would_stand_idle_longer_than_a_replay_takes_is_taken_at_once() -> None:
    shelf, (lane,) = held((1.0, 5.0, 0.0))
    chosen, waiter = asked(shelf)
    assert chosen is lane
    assert waiter.damage == 1.0


def test_the_cheapest_loss_is_taken() -> None:
    shelf, (cheap, _dear) = held((1.0, 5.0, 0.0), (4.0, 5.0, 0.0))
    assert asked(shelf)[0] is cheap


def test_who_stays_away_longest_is_taken_among_equals() -> None:
    shelf, (_back_soon, gone_long) = held((1.0, 2.0, 0.0), (1.0, 20.0, 0.0))
    assert asked(shelf)[0] is gone_long


def test_a_dear_lane_is_left_to_its_owner_for_as_long_as_its_loss_would_cost() -> None:
    shelf, (lane,) = held((5.0, 1.0, 0.0))
    look_again, waiter = asked(shelf)
    assert look_again == 5.0
    assert ByCost().instead(shelf, waiter, now=5.0) is lane


def test_it_never_asks_to_be_asked_again_at_once() -> None:
    shelf, _ = held((1e-9, 0.0, 0.0))
    waiter = Waiter()
    assert ByCost().instead(shelf, waiter, now=0.0) == SOON


def test_nothing_on_the_shelf_is_worth_no_timer() -> None:
    assert asked(Shelf())[0] == math.inf


def test_who_is_away_for_long_may_have_gone_for_good() -> None:
    hold = Hold()
    hold.worth, hold.gap = 8.0, 1.0
    assert damage(hold, 4.0) == 8.0
    assert damage(hold, 16.0) == 2.0, "one in four comes back"
    assert stays_away(1.0, 0.25) == 0.75
    assert stays_away(1.0, 16.0) == 8.0


@given(
    base=st.floats(0, 10),
    slope=st.floats(0, 1e-3),
    places=st.lists(st.integers(0, 500_000), min_size=2, max_size=30, unique=True),
)
def test_a_line_finds_itself_again(base: float, slope: float, places: list[int]) -> None:
    line = Line.through(base, slope, at=tuple(map(float, places)))
    for place in places:
        assert line.at(place) == pytest.approx(base + slope * place, rel=1e-3, abs=1e-3)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 100)), max_size=30),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
)
def test_a_line_is_never_negative_and_never_falls(
    points: list[tuple[float, float]], one: float, other: float
) -> None:
    line = Line()
    for point in points:
        line.add(*point)
    low, high = sorted((one, other))
    assert 0.0 <= line.at(low) <= line.at(high) + 1e-6


def test_the_cost_of_a_replay_is_learned_for_each_model() -> None:
    estimates = Estimates()
    cost = estimates.replay("quick")
    assert estimates.replay("quick") is cost
    for tokens in range(1000, 200_000, 1000):
        cost.saw("replay:lost", tokens=tokens, seconds=0.1 + tokens * 1e-6)
        cost.saw("hot", tokens=tokens, seconds=0.1)
        cost.saw("hydrated", tokens=tokens, seconds=0.15)
    assert cost.of(100_000, stored=False) == pytest.approx(0.1, rel=0.2)
    assert cost.of(100_000, stored=True) == pytest.approx(0.05, rel=0.2)
    assert estimates.replay("other").of(100_000, stored=False) > 1.0


def test_before_anything_is_seen_a_bigger_context_costs_more() -> None:
    cost = ReplayCost()
    assert 0.0 < cost.of(1_000, stored=False) < cost.of(100_000, stored=False)


def test_an_average_follows() -> None:
    average = Average(2.0, 0.5)
    average.add(4.0)
    assert average.value == 3.0


def test_it_bides_as_long_as_a_replay_costs_or_longer_where_moving_gains_nothing() -> None:
    hold = Hold("ada")
    hold.worth = 2.0
    waiter = Waiter(hold)
    policy = ByCost()
    assert policy.patience(waiter, expected=1.0, elsewhere=True) == 2.0
    assert policy.patience(waiter, expected=3.0, elsewhere=True) == 0.0
    assert policy.patience(waiter, expected=1.0, elsewhere=False) == 2.0 + SURELY * 1.0
    assert policy.patience(waiter, expected=3.0, elsewhere=False) == REPLAYS * 2.0, "but not for ever"

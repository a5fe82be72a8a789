"""Who may leave for another lane now: those who will probably be there before their next turn."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pool.slots import Conn, Hold, Lane
from scheduler.departures import TRIES, Departure, Departures, at_once


def leaver(*, gap: float = 10.0, takes: float = 1.0, since: float = 0.0, lane: bool = True) -> Departure:
    hold = Hold()
    hold.gap, hold.lane = gap, Lane(Conn(1), 0, None) if lane else None
    one = Departure()
    one.ask(hold, since=since, takes=takes)
    return one


def queue(*ones: Departure) -> Departures[Departure]:
    departures: Departures[Departure] = Departures()
    for one in ones:
        departures.add(one)
    return departures


def test_it_departs_while_its_tools_will_take_longer_than_the_move() -> None:
    one = leaver(gap=10.0, takes=1.0)
    assert queue(one).take(1, now=0.5) == [one]


def test_it_stays_when_its_next_turn_would_overtake_the_move() -> None:
    waiting = queue(leaver(gap=1.0, takes=3.0))
    assert waiting.take(1, now=0.5) == []
    assert len(waiting) == 1


def test_who_stays_away_far_longer_than_usual_departs_after_all() -> None:
    one = leaver(gap=1.0, takes=3.0)
    waiting = queue(one)
    again = waiting.due(now=0.5)
    assert again == 6.0
    assert waiting.take(1, now=again) == [one]
    assert waiting.due(now=again) == math.inf


def test_without_a_lane_it_departs_at_once_and_first() -> None:
    bereft, patient = leaver(gap=0.1, takes=9.0, lane=False), leaver(gap=100.0)
    assert queue(patient, bereft).take(2, now=0.0) == [bereft, patient]


def test_who_has_the_most_time_to_spare_goes_first() -> None:
    ones = [leaver(gap=gap) for gap in (3.0, 9.0, 6.0)]
    assert [one.hold.gap for one in queue(*ones).take(2, now=0.0)] == [9.0, 6.0]


def test_after_so_many_moves_in_vain_it_stays_on_that_lane() -> None:
    one = leaver()
    for _ in range(TRIES):
        assert one.spare(0.0) > 0
        one.overtaken()
    assert queue(one).take(1, now=0.0) == []
    assert one.due(0.0) == math.inf
    one.ask(one.hold, since=0.0, takes=1.0)
    assert one.spare(0.0) < 0, "asking again does not make the lane another one"
    one.hold.lane = None
    assert one.spare(0.0) == math.inf, "now its next turn has to wait in any case"
    one.hold.lane = Lane(Conn(2), 0, None)
    one.ask(one.hold, since=0.0, takes=1.0)
    assert one.spare(0.0) > 0, "a new lane, a new start"


def test_small_pools_move_a_few_at_a_time_and_big_ones_an_eighth() -> None:
    assert [at_once(capacity) for capacity in (1, 32, 128, 800)] == [4, 4, 16, 100]


@given(
    ones=st.lists(
        st.builds(
            leaver,
            gap=st.floats(0, 100),
            takes=st.floats(0.01, 100),
            since=st.floats(0, 100),
            lane=st.booleans(),
        ),
        max_size=20,
    ),
    room=st.integers(-1, 8),
    now=st.floats(100, 400),
)
def test_nobody_is_lost_and_whoever_stays_is_looked_at_again(
    ones: list[Departure], room: int, now: float
) -> None:
    waiting = queue(*ones)
    gone = waiting.take(room, now)
    assert len(gone) <= max(0, room)
    assert len(gone) + len(waiting) == len(ones)
    assert all(one.spare(now) >= 0 for one in gone)
    stayed = [one for one in ones if one not in gone]
    if len(gone) < room:  # nobody stayed for want of room
        assert all(one.spare(now) < 0 for one in stayed)
        assert all(now < one.due(now) < math.inf for one in stayed), "there comes a time for everybody"
        if stayed:
            later = max(one.due(now) for one in stayed)
            assert len(waiting.take(len(stayed), later)) == len(stayed)

"""The waiting line: who bides for its own lane, who packs where, and connections that serve one model."""

from __future__ import annotations

import random

import pytest

from pool.ledger import Shelf
from pool.placement import Ladder, Placement
from pool.roster import Roster
from pool.settings import Lanes
from pool.slots import Hold, Lane, Waiter
from scheduler.policy import ByCost
from tests.support.rosters import ENDPOINT, Desk, settings

TWO = Lanes(in_flight=2, named=4)


def desk(
    lanes: Lanes | None = None,
    *,
    placement: Placement | None = None,
    one_model: bool = False,
    **changes: object,
) -> Desk:
    endpoint = ENDPOINT.with_(lanes=lanes or Lanes.single(), one_model=one_model)
    return Desk(
        Roster(
            endpoint=endpoint,
            settings=settings(**changes),
            rng=random.Random(0),
            placement=placement or ByCost(),
        )
    )


def hot(desk_: Desk, name: str, worth: float = 1.0) -> Hold:
    """Return the hold of a conversation that has a lane, after a turn of a tenth of a second."""
    hold = Hold(name)
    lane = desk_.take(hold)
    desk_.now += 0.1
    desk_.give(lane)
    hold.worth, hold.gap = worth, 1.0
    return hold


def ask(desk_: Desk, model: str | None, hold: Hold | None = None) -> Waiter:
    waiter = Waiter(hold, model=model)
    desk_.did(desk_.roster.enqueue(waiter, now=desk_.now))
    return waiter


def crowd(desk_: Desk, worth: float) -> tuple[Hold, list[Lane]]:
    """Fill a connection of two while a third conversation is hot on it, and open another one beside it."""
    desk_.grow()
    late, *busy = [hot(desk_, name, worth) for name in ("late", "ada", "bob")]
    lanes = [desk_.take(hold) for hold in busy]
    desk_.grow()
    return late, lanes


def test_it_bides_for_its_own_lane_where_that_costs_less_than_a_replay() -> None:
    desk_ = desk(TWO, max_connections=2)
    late, lanes = crowd(desk_, worth=1.0)
    waiter = desk_.ask(late)
    assert desk_.waits(waiter), "a free lane elsewhere would be a replay"
    assert desk_.roster.ledger.dialing == {}
    desk_.give(lanes[0])
    assert waiter.lane is late.lane
    assert waiter.own


def test_it_bides_no_longer_than_the_replay_would_take() -> None:
    desk_ = desk(TWO, max_connections=2)
    late, _ = crowd(desk_, worth=1.0)
    waiter = desk_.ask(late)
    began = desk_.now
    assert desk_.roster.next_due() == began + 1.0
    desk_.pass_time(0.9)
    assert desk_.waits(waiter)
    desk_.pass_time(0.2)
    assert waiter.lane is not None
    assert not waiter.own
    assert late.lane is waiter.lane


def test_nothing_is_due_while_the_pool_is_paused() -> None:
    """The patience of somebody who bides ends, but nobody can be served: to look again and again would be in vain."""
    desk_ = desk(TWO, max_connections=2)
    late, _ = crowd(desk_, worth=1.0)
    waiter = desk_.ask(late)
    desk_.roster.pause()
    desk_.pass_time(2.0)
    desk_.tick()
    assert desk_.roster.next_due() > desk_.now
    assert desk_.waits(waiter)
    desk_.did(desk_.roster.resume(now=desk_.now))
    assert waiter.lane is not None
    assert not waiter.own


def test_it_does_not_bide_where_the_replay_costs_less() -> None:
    desk_ = desk(TWO, max_connections=2)
    late, _ = crowd(desk_, worth=0.01)
    before = late.lane
    assert desk_.take(late) is not before
    plain = desk(TWO, max_connections=2, placement=Ladder())
    late, _ = crowd(plain, worth=1.0)
    before = late.lane
    assert plain.take(late) is not before


def test_where_all_are_as_full_it_bides_for_longer() -> None:
    """One connection for three conversations, two at a time: to move would only take the place of another."""
    desk_ = desk(TWO, max_connections=2)
    late, lanes = crowd(desk_, worth=0.01)
    for name in ("eve", "joe"):
        hot(desk_, name)
    waiter = desk_.ask(late)
    assert desk_.waits(waiter)
    desk_.give(lanes[0])
    assert waiter.own


def test_who_is_overtaken_goes_on_biding() -> None:
    desk_ = desk(TWO, max_connections=2)
    desk_.grow()
    late, later, *busy = [hot(desk_, name) for name in ("late", "later", "ada", "bob")]
    lanes = [desk_.take(hold) for hold in busy]
    desk_.grow()
    first, second = desk_.ask(late), desk_.ask(later)
    desk_.give(lanes[0])
    assert first.own
    assert desk_.waits(second), "a lane is free elsewhere, but its own will be, too"
    desk_.give(lanes[1])
    assert second.own


def test_who_bides_is_not_dialled_for_and_robs_nobody() -> None:
    desk_ = desk(TWO, max_connections=3)
    late, _ = crowd(desk_, worth=5.0)
    before = len(desk_.dialled)
    waiter = desk_.ask(late)
    desk_.pass_time(1.0)
    assert desk_.waits(waiter)
    assert len(desk_.dialled) == before


@pytest.mark.parametrize("what", ["lost", "stolen"])
def test_whose_lane_goes_bides_no_longer(what: str) -> None:
    desk_ = desk(TWO, max_connections=2)
    late, lanes = crowd(desk_, worth=5.0)
    waiter = desk_.ask(late)
    assert late.lane is not None
    if what == "lost":
        desk_.lose(late.lane.conn)
    else:
        desk_.did(desk_.roster.let_go(late, now=desk_.now))
    assert waiter.lane is not None
    assert waiter.lane not in lanes


def test_who_bides_can_give_up() -> None:
    desk_ = desk(TWO, max_connections=2)
    late, lanes = crowd(desk_, worth=5.0)
    waiter = desk_.ask(late)
    desk_.did(desk_.roster.withdraw(waiter, now=desk_.now))
    desk_.give(lanes[0])
    assert desk_.take(late) is late.lane


def test_no_more_conversations_settle_on_a_connection_than_it_carries() -> None:
    desk_ = desk(TWO, max_connections=2)
    desk_.grow(2)
    holds = [hot(desk_, str(number)) for number in range(4)]
    settled = [hold.lane.conn.id for hold in holds if hold.lane]
    assert sorted(settled) == [1, 1, 2, 2]
    fifth = hot(desk_, "fifth")
    assert fifth.lane is not None, "when all are full it settles beyond that"


def test_a_connection_serves_one_model() -> None:
    desk_ = desk(one_model=True, max_connections=3)
    desk_.grow(2)
    first = ask(desk_, "a")
    assert first.lane is not None
    desk_.give(first.lane)
    again = ask(desk_, "a")
    assert again.lane is first.lane, "the one that is bound already"
    other = ask(desk_, "b")
    assert other.lane is not None
    assert other.lane.conn is not first.lane.conn
    third = ask(desk_, "c")
    assert desk_.waits(third)
    desk_.open()
    assert third.lane is not None
    assert {conn.model for conn in desk_.roster.ledger.open} == {"a", "b", "c"}


def test_a_conversation_with_another_model_moves() -> None:
    desk_ = desk(one_model=True, max_connections=2)
    desk_.grow(2)
    hold = Hold("ada")
    first = ask(desk_, "a", hold)
    assert first.lane is not None
    desk_.give(first.lane)
    second = ask(desk_, "b", hold)
    assert second.lane is not None
    assert second.lane is not first.lane
    assert hold.lost == "model"
    assert hold.lane is second.lane


@pytest.mark.parametrize("placement", [Ladder(), ByCost()])
def test_an_idle_connection_makes_way_for_another_model(placement: Placement) -> None:
    desk_ = desk(one_model=True, max_connections=1, placement=placement)
    desk_.grow()
    hold = Hold("ada")
    first = ask(desk_, "a", hold)
    assert first.lane is not None
    desk_.give(first.lane)
    second = ask(desk_, "b", hold)
    assert desk_.closed == [(first.lane.conn, "model")]
    assert hold.lost == "model"
    desk_.open()
    assert second.lane is not None
    assert second.lane.conn.model == "b"


def test_a_free_connection_of_another_model_makes_way_at_once() -> None:
    desk_ = desk(one_model=True, max_connections=1)
    desk_.grow()
    first = ask(desk_, "a")
    assert first.lane is not None
    desk_.give(first.lane)
    waiters = [ask(desk_, "b"), ask(desk_, "b")]
    assert desk_.closed == [(first.lane.conn, "model")]
    desk_.open()
    assert waiters[0].lane is not None
    desk_.give(waiters[0].lane)
    assert waiters[1].lane is waiters[0].lane


def test_no_more_connections_make_way_than_are_wanted() -> None:
    desk_ = desk(one_model=True, max_connections=3)
    desk_.grow(3)
    lanes = [ask(desk_, "a").lane for _ in range(3)]
    for lane in lanes:
        assert lane is not None
        desk_.give(lane)
    ask(desk_, "b")
    assert len(desk_.closed) == 1
    desk_.pass_time(30.0)
    assert len(desk_.closed) == 1, "the dial takes its time; nobody else has to go for it"


def test_a_busy_connection_makes_way_for_nobody() -> None:
    desk_ = desk(one_model=True, max_connections=1)
    desk_.grow()
    first = ask(desk_, "a")
    second = ask(desk_, "b")
    desk_.pass_time(5.0)
    assert desk_.waits(second)
    assert first.lane is not None
    desk_.give(first.lane)
    desk_.open()
    assert second.lane is not None


def test_a_pinned_lane_of_another_model_is_refused() -> None:
    desk_ = desk(one_model=True, max_connections=1)
    desk_.grow()
    hold = Hold("ada")
    first = ask(desk_, "a", hold)
    assert first.lane is not None
    desk_.give(first.lane)
    pinned = Waiter(hold, pin=True, model="b")
    desk_.did(desk_.roster.enqueue(pinned, now=desk_.now))
    assert "serves a only" in str(pinned.error)


def test_a_long_line_is_not_asked_one_by_one() -> None:
    """Everybody's lane is worth keeping, so five thousand wait; a turn on its own lane asks next to none of them."""
    asked: list[Waiter] = []

    class Counting(ByCost):
        def first(self, shelf: Shelf, waiter: Waiter) -> Lane | None:
            asked.append(waiter)
            return super().first(shelf, waiter)

        def instead(self, shelf: Shelf, waiter: Waiter, *, now: float) -> Lane | float:
            asked.append(waiter)
            return super().instead(shelf, waiter, now=now)

    stage = desk(placement=Counting(), max_connections=2)
    stage.grow(2)
    ada, bob = hot(stage, "ada", 1e6), hot(stage, "bob", 1e6)
    ada.gap = bob.gap = 100.0
    line = [ask(stage, None) for _ in range(5000)]
    assert not any(waiter.lane for waiter in line)
    asked.clear()
    lane = stage.take(ada)
    stage.give(lane)
    assert len(asked) < 20

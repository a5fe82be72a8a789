"""What somebody sees who looks into a pool."""

from __future__ import annotations

import pytest
import trio
from attrs.exceptions import FrozenInstanceError
from trio.testing import MockClock, wait_all_tasks_blocked

from pool.dial import WireClosed
from pool.errors import DialFailed
from pool.settings import Lanes
from pool.slots import Conn, ConnState, Hold, LaneState, Waiter
from pool.stats.view import LOSSES_KEPT, REASON_LENGTH, WAITERS_SHOWN, Losses, cause_of, view_of
from tests.dashboard.stage import silent
from tests.support.rosters import ENDPOINT, Desk, settings


def desk(**changes: object) -> Desk:
    """Return a desk with a roster."""
    import random

    from pool.roster import Roster

    endpoint = ENDPOINT.with_(lanes=Lanes.multi(in_flight=2, named=3), max_age=1000.0)
    return Desk(Roster(endpoint=endpoint, settings=settings(**changes), rng=random.Random(1)))


def test_a_connection_and_its_lanes() -> None:
    at = desk(max_connections=1)
    one, other = Hold("one"), Hold("other")
    at.ask(one)
    at.now = 2.0
    at.open()
    assert one.lane is not None
    at.now = 5.0
    at.give(one.lane)
    at.take(other)
    view = view_of(at.roster, (), now=7.0)
    (conn,) = view.connections
    assert (conn.name, conn.state, conn.since, conn.opened_at) == ("c1", ConnState.OPEN, 0.0, 2.0)
    assert (conn.lanes_total, conn.in_flight_limit, conn.busy, conn.hot) == (3, 2, 1, 1)
    assert conn.dies_at == 1002.0
    assert conn.retire_at == 1002.0 - 250.0, "a quarter of its life is the reserve"
    states = {lane.conversation: (lane.state, lane.since) for lane in conn.lanes}
    assert states == {"one": (LaneState.HELD, 5.0), "other": (LaneState.LEASED, 5.0)}
    assert (view.busy_lanes, view.usable_lanes, view.max_connections, view.lanes_each) == (1, 2, 1, 2)
    with pytest.raises(FrozenInstanceError):
        conn.state = ConnState.CLOSED  # type: ignore[misc]  # that is the point


def test_what_stands_still_looks_the_same_later() -> None:
    at = desk(max_connections=1)
    at.ask(Hold("one"))
    at.open()
    before, after = view_of(at.roster, (), now=1.0), view_of(at.roster, (), now=100.0)
    assert before.connections == after.connections


def test_a_dial_is_a_connection_without_lanes() -> None:
    at = desk()
    at.ask()
    (conn,) = view_of(at.roster, (), now=1.0).connections
    assert (conn.state, conn.opened_at, conn.retire_at, conn.dies_at) == (ConnState.DIALING, None, None, None)
    assert (conn.lanes, conn.busy, conn.hot) == ((), 0, 0)


def test_connections_come_in_the_order_of_their_dials() -> None:
    at = desk(max_connections=3, min_idle=9)
    at.did(at.roster.resume(now=0.0))
    at.open()
    at.open(list(at.roster.ledger.dialing)[1])
    assert [conn.id for conn in view_of(at.roster, (), now=0.0).connections] == [1, 2, 3]


def test_who_waits_and_for_what() -> None:
    at = desk(max_connections=1)
    one, other = Hold("one"), Hold("other")
    at.ask(one)
    at.open()
    assert one.lane is not None
    one.lane.holder = "one"
    at.take(other)
    at.now = 3.0
    at.ask(one, pin=True)
    at.ask()
    polite = Waiter(Hold("mover"), polite=True)
    at.did(at.roster.enqueue(polite, now=3.0))
    view = view_of(at.roster, (), now=4.0)
    assert view.waiting == 3
    assert [(w.who, w.wants, w.lane, w.behind) for w in view.waiters] == [
        ("one", "its own lane", "c1/lane-01", "one"),
        ("(unnamed)", "any lane", "", ""),
        ("mover", "a lane that nobody is hot on", "", ""),
    ]
    assert {w.since for w in view.waiters} == {3.0}


def test_a_long_line_is_counted_but_not_listed() -> None:
    at = desk(max_connections=1)
    for _ in range(WAITERS_SHOWN + 50):
        at.ask()
    view = view_of(at.roster, (), now=0.0)
    assert (view.waiting, len(view.waiters)) == (WAITERS_SHOWN + 50, WAITERS_SHOWN)


@pytest.mark.parametrize(
    ("why", "end", "said"),
    [
        ("silent", None, "no answer to a ping"),
        ("stalled", None, "took no data, or made no progress"),
        (None, None, "cut off without a goodbye"),
        (None, WireClosed(1006, "reset by peer"), "cut off without a goodbye (reset by peer)"),
        (None, WireClosed(1011, None), "closed by the server (1011)"),
        (None, WireClosed(1012, "see\nyou"), "closed by the server (1012: see you)"),
        (None, WireClosed(1012, "x" * 999), f"closed by the server (1012: {'x' * REASON_LENGTH})"),
    ],
)
def test_a_loss_has_a_cause_in_words(why: str | None, end: WireClosed | None, said: str) -> None:
    assert cause_of(why, end) == said


def test_losses_are_remembered_within_a_bound_the_latest_first() -> None:
    losses = Losses()
    for number in range(LOSSES_KEPT + 5):
        losses.lost(Conn(number), None, None, turns=number, now=float(number))
    assert len(losses.latest) == LOSSES_KEPT
    assert losses.latest[0].turns == LOSSES_KEPT + 4


def test_a_failed_dial_is_said_without_its_url_and_its_body() -> None:
    losses = Losses()
    error = DialFailed("wss://host/v1/responses?x=1 refused the upgrade with HTTP 429 (a long story)")
    losses.dial_failed(Conn(7), error, now=1.0)
    (loss,) = losses.latest
    assert (loss.connection, loss.kind) == ("c7", "dial failed")
    assert loss.cause == "refused the upgrade with HTTP 429"


async def test_a_pool_remembers_what_it_lost(autojump_clock: MockClock) -> None:
    async with silent(1) as stage:
        await stage.lease("one")
        await trio.sleep(30)
        stage.wires[0].ended.set()
        await wait_all_tasks_blocked()
        (loss,) = stage.pool.view().losses
        assert (loss.connection, loss.kind, loss.age, loss.turns) == ("c1", "lost", 30.0, 0)
        assert loss.cause == "closed by the server (1011: deploying)"


async def test_a_pool_remembers_dials_that_failed(autojump_clock: MockClock) -> None:
    async with silent(1) as stage:
        stage.refusing.append(503)
        await stage.lease("one")
        (loss,) = stage.pool.view().losses
        assert (loss.kind, loss.cause) == ("dial failed", "refused the upgrade")

"""The breaker in the roster: no dials while it is open, and one at a time until the endpoint is back."""

from __future__ import annotations

from pool.breaker import BreakerState
from pool.errors import DialFailed
from tests.support.rosters import desk


def test_after_enough_failures_one_dial_at_a_time() -> None:
    desk_ = desk(min_idle=0, max_connections=8, dial_attempts=3)
    waiters = [desk_.ask() for _ in range(5)]
    assert len(desk_.roster.ledger.dialing) == 5
    for _ in range(5):
        desk_.fail()
    assert desk_.roster.breaker.state is BreakerState.OPEN
    assert desk_.roster.ledger.dialing == {}
    assert all(isinstance(waiter.error, DialFailed) for waiter in waiters)
    more = [desk_.ask() for _ in range(5)]
    desk_.pass_time(40.0)
    assert len(desk_.roster.ledger.dialing) == 1
    desk_.pass_time(40.0)
    assert len(desk_.roster.ledger.dialing) == 1
    desk_.open()
    assert desk_.roster.breaker.closed
    assert more[0].lane is not None
    assert len(desk_.roster.ledger.dialing) == 4  # the others need wait no longer


def test_a_probe_that_nobody_waits_for() -> None:
    desk_ = desk(min_idle=0, max_connections=8)
    desk_.did(desk_.roster.probe(now=desk_.now))
    assert desk_.dialled == []  # all is well: nothing to see
    desk_.ask()
    desk_.fail(status=426, hopeless=True)
    desk_.did(desk_.roster.probe(now=desk_.now))
    assert desk_.roster.ledger.dialing == {}  # too early
    desk_.pass_time(40.0)
    for _ in range(3):
        desk_.did(desk_.roster.probe(now=desk_.now))
    assert len(desk_.roster.ledger.dialing) == 1
    desk_.open()
    assert desk_.roster.breaker.closed


def test_a_probe_that_is_given_up_is_not_the_last() -> None:
    desk_ = desk(min_idle=0, max_connections=2)
    desk_.ask()
    desk_.fail(hopeless=True)
    desk_.pass_time(40.0)
    desk_.did(desk_.roster.probe(now=desk_.now))
    (conn,) = desk_.roster.ledger.dialing
    desk_.lose(conn)
    assert desk_.roster.breaker.state is BreakerState.OPEN
    desk_.did(desk_.roster.probe(now=desk_.now))
    assert len(desk_.roster.ledger.dialing) == 1
    desk_.did(desk_.roster.stop(now=desk_.now))
    desk_.did(desk_.roster.probe(now=desk_.now))
    assert desk_.roster.ledger.dialing == {}

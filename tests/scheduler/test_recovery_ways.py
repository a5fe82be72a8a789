"""What may be sent again the other way: over HTTP instead of a socket, and back."""

from __future__ import annotations

import random

import pytest

from pool.errors import (
    ConnectionLost,
    DialFailed,
    FrameTooLarge,
    PoolError,
    RemoteProtocolError,
    ResponseFailed,
)
from scheduler.recovery import Again, GiveUp, Over, Remedy, recover
from scheduler.settings import SchedulerSettings

OVERSIZE = FrameTooLarge(size=10, limit=5)
TOO_BIG = ConnectionLost("too big", sent=True, code=1009)
DOWN = DialFailed("nobody answers")
NO_UPGRADE = DialFailed("no WebSocket here", status=426, hopeless=True)
BAD_KEY = DialFailed("bad key", status=401, hopeless=True)
NO_ROUTE = ResponseFailed("Not Found", status=404)


def decide(
    error: PoolError,
    over: Over,
    *,
    attempts: int = 1,
    free: int = 1,
    settings: SchedulerSettings | None = None,
) -> Again | GiveUp:
    return recover(
        error,
        attempts=attempts,
        free_attempts=free,
        settings=settings or SchedulerSettings(),
        rng=random.Random(0),
        over=over,
    )


@pytest.mark.parametrize(
    ("error", "remedy", "costs"),
    [
        (OVERSIZE, Remedy.OVERSIZE, False),
        (TOO_BIG, Remedy.OVERSIZE, True),
        (ConnectionLost("too big", sent=False, code=1009), Remedy.OVERSIZE, True),
        (DOWN, Remedy.FALLBACK, False),
        (NO_UPGRADE, Remedy.FALLBACK, False),
        (DialFailed("later", status=503, retry_after=9000), Remedy.FALLBACK, False),
    ],
    ids=str,
)
def test_from_a_socket_to_http(error: PoolError, remedy: Remedy, costs: bool) -> None:
    action = decide(error, Over.SOCKET)
    assert isinstance(action, Again)
    assert (action.remedy, action.delay, action.costs_attempt) == (remedy, 0.0, costs)
    assert action.resend is costs  # what never left is not sent again
    for over in set(Over) - {Over.SOCKET}:
        other = decide(error, over)
        assert isinstance(other, GiveUp) or other.remedy is None
    last = decide(error, Over.SOCKET, attempts=6, free=32)
    assert last == GiveUp()


def test_what_http_would_not_mend() -> None:
    assert decide(BAD_KEY, Over.SOCKET) == GiveUp()
    assert decide(ConnectionLost("x", sent=True, started=True, code=1009), Over.SOCKET) == Again(
        reason="lost in mid-response"
    )


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_endpoint_without_an_http_side(status: int) -> None:
    action = decide(ResponseFailed("Not Found", status=status), Over.HTTP)
    assert isinstance(action, Again)
    assert (action.remedy, action.costs_attempt, action.resend) == (Remedy.NO_HTTP, False, False)
    for over in set(Over) - {Over.HTTP}:
        assert isinstance(decide(NO_ROUTE, over), GiveUp)


@pytest.mark.parametrize(
    "error",
    [
        ResponseFailed("no such model", status=404, code="model_not_found"),
        ResponseFailed("no such thing", status=404, param="input"),
        ResponseFailed("gone", status=404, started=True),
        ResponseFailed("bad", status=400),
    ],
    ids=str,
)
def test_a_404_that_means_something_else(error: ResponseFailed) -> None:
    assert decide(error, Over.HTTP) == GiveUp()


def test_items_that_were_not_stored() -> None:
    action = decide(ResponseFailed("Item with id 'rs_1' not found.", status=404), Over.HTTP)
    assert isinstance(action, Again)
    assert action.remedy is Remedy.PLAIN_ITEMS


@pytest.mark.parametrize("over", [Over.HTTP, Over.HTTP_ALONE])
def test_the_other_rows_hold_over_http_as_well(over: Over) -> None:
    lost = decide(ConnectionLost("x", sent=True), over)
    assert lost == Again(reason="lost after the send")
    assert isinstance(decide(RemoteProtocolError("x"), over), Again)
    limited = decide(ResponseFailed("x", status=429, retry_after=3.0), over)
    assert limited == Again(reason="429", delay=3.0)
    down = decide(DOWN, over)
    assert isinstance(down, Again)
    assert (down.remedy, down.costs_attempt) == (None, True)
    assert down.delay > 0

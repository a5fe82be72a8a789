"""What may be sent again: every row of the recovery table, under every setting, to the last attempt."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.errors import (
    ConnectionLost,
    DialFailed,
    FrameTooLarge,
    LaneOverflow,
    LocalProtocolError,
    PoolClosed,
    PoolError,
    PoolSaturated,
    RemoteProtocolError,
    ResponseFailed,
    SettingsError,
)
from scheduler.recovery import LATER, NEVER, Again, GiveUp, Remedy, backoff, recover, told_delay
from scheduler.settings import SchedulerSettings


class Unjittered(random.Random):
    """Always the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


FULL = Unjittered()

EVERY = [
    SchedulerSettings(attempts=attempts, free_attempts=free, ambiguous=ambiguous, interrupted=interrupted)  # type: ignore[arg-type]
    for attempts, free, ambiguous, interrupted in itertools.product(
        (1, 3), (1, 4), ("resend", "fail"), ("restart", "fail")
    )
]


def failed(message: str = "no", **fields: Any) -> ResponseFailed:
    return ResponseFailed(message, **fields)


def decide(
    error: PoolError, settings: SchedulerSettings | None = None, *, attempts: int = 1, free: int = 1
) -> Again | GiveUp:
    return recover(
        error, attempts=attempts, free_attempts=free, settings=settings or SchedulerSettings(), rng=FULL
    )


STALE = ConnectionLost("stale", sent=False)
AMBIGUOUS = ConnectionLost("lost", sent=True)
TOO_BIG = ConnectionLost("lost", sent=True, code=1009)
CUT = ConnectionLost("lost", sent=True, started=True)
NOT_FOUND = "previous_response_not_found"
AGE, NAMES = "websocket_connection_limit_reached", "websocket_stream_limit_reached"

FREE: list[tuple[PoolError, str, Remedy | None]] = [
    (STALE, "stale socket", None),
    (failed(code=NOT_FOUND, status=400, param="previous_response_id"), NOT_FOUND, Remedy.FORGET_TIP),
    (failed(code=AGE, status=400), AGE, None),
    (failed(code=NAMES, status=400, param="stream_id"), NAMES, None),
    (
        failed(code="invalid_stream_id", status=400, param="stream_id"),
        "lane names refused",
        Remedy.SINGLE_LANES,
    ),
    (failed(code="invalid_stream_id"), "lane names refused", Remedy.SINGLE_LANES),
    (
        failed(code="unsupported_parameter", status=400, param="stream_id"),
        "lane names refused",
        Remedy.SINGLE_LANES,
    ),
    (
        failed("Encrypted content is not supported with this model.", status=400, param="include"),
        "no encrypted reasoning",
        Remedy.PLAIN_REASONING,
    ),
    (
        failed("Item with id 'rs_1' not found. Items are not persisted ...", status=404, param="input"),
        "items not stored",
        Remedy.PLAIN_ITEMS,
    ),
]

BACK_OFF: list[tuple[PoolError, str]] = [
    (failed(status=429), "429"),
    (failed(status=429, code="rate_limit_exceeded", kind="tokens"), "rate_limit_exceeded"),
    (failed(status=500, kind="server_error"), "server_error"),
    (failed(status=502), "502"),
    (failed(status=503, code="server_is_overloaded"), "server_is_overloaded"),
    *((failed(code=code, started=True), code) for code in sorted(LATER)),
    *((failed(code=code), code) for code in sorted(LATER)),
    *((failed(kind=code), code) for code in sorted(LATER)),
    (DialFailed("down"), "dial failed"),
    (DialFailed("busy", status=429), "dial failed"),
]

THE_CALLERS: list[PoolError] = [
    failed(status=400, code="invalid_value", param="input"),
    failed("No tool output found for function call call_1.", status=400, param="input"),
    failed(status=401),
    failed(status=403),
    failed(status=404, code="model_not_found"),
    failed(code="content_filter", started=True),
    failed(),
    # Known by their words only before the response has begun.
    failed("Encrypted content is not supported with this model.", status=400, started=True),
    failed("Item with id 'rs_1' not found.", status=404, started=True),
    failed(param="stream_id", status=400, started=True),
    *(failed(status=429, code=code) for code in sorted(NEVER)),
    *(failed(status=429, kind=code) for code in sorted(NEVER)),
    failed(status=429, code="rate_limit_exceeded", kind="usage_limit_reached"),
    DialFailed("no", status=401, hopeless=True),
    PoolClosed("closed"),
    PoolSaturated(waiting=3, limit=3, state=""),
    FrameTooLarge(size=2, limit=1),
    LaneOverflow(events=1, size=1),
    LocalProtocolError("ours"),
    SettingsError("options", 1, "leave it out"),
]


@pytest.mark.parametrize(("error", "reason", "remedy"), FREE, ids=lambda value: str(value))
def test_what_costs_no_attempt(error: PoolError, reason: str, remedy: Remedy | None) -> None:
    for settings in EVERY:
        for attempts in range(1, settings.attempts + 1):
            for free in range(1, settings.free_attempts):
                assert decide(error, settings, attempts=attempts, free=free) == Again(
                    reason=reason, delay=0.0, costs_attempt=False, remedy=remedy
                )
            assert decide(error, settings, attempts=attempts, free=settings.free_attempts) == GiveUp()


@pytest.mark.parametrize(("error", "reason"), BACK_OFF, ids=lambda value: str(value))
def test_what_is_tried_again_later(error: PoolError, reason: str) -> None:
    for settings in EVERY:
        for attempts in range(1, settings.attempts):
            for free in (1, settings.free_attempts):
                assert decide(error, settings, attempts=attempts, free=free) == Again(
                    reason=reason, delay=0.5 * 2 ** (attempts - 1), resend=reason != "dial failed"
                )
        assert decide(error, settings, attempts=settings.attempts) == GiveUp()


@pytest.mark.parametrize("error", THE_CALLERS, ids=str)
def test_what_is_the_callers(error: PoolError) -> None:
    for settings in EVERY:
        assert decide(error, settings) == GiveUp()


@pytest.mark.parametrize(
    ("error", "reason", "allowed_by"),
    [
        (AMBIGUOUS, "lost after the send", "ambiguous"),
        (CUT, "lost in mid-response", "interrupted"),
        (RemoteProtocolError("odd"), "lost in mid-response", "interrupted"),
        (failed(code=AGE, status=400, started=True), AGE, "interrupted"),
        (failed(code=NOT_FOUND, started=True), NOT_FOUND, "interrupted"),
    ],
    ids=lambda value: str(value),
)
def test_what_the_settings_decide(error: PoolError, reason: str, allowed_by: str) -> None:
    for settings in EVERY:
        allowed = getattr(settings, allowed_by) in ("resend", "restart")
        for attempts in range(1, settings.attempts + 1):
            expected = Again(reason=reason, delay=0.0 if attempts == 1 else 0.5 * 2 ** (attempts - 2))
            again = allowed and attempts < settings.attempts
            assert decide(error, settings, attempts=attempts) == (expected if again else GiveUp())


def test_a_message_that_is_too_big_is_not_sent_for_ever() -> None:
    """The close may have been due to a neighbour's message, so once more; then it is ours."""
    assert decide(TOO_BIG) == Again(reason="lost after the send")
    assert decide(TOO_BIG, attempts=2) == GiveUp()
    assert decide(ConnectionLost("lost", sent=True, started=True, code=1009), attempts=2) != GiveUp()


def test_a_wait_that_we_are_told() -> None:
    settings = SchedulerSettings(retry_after_max=10)
    for told in (0.0, 0.2, 10.0):
        assert decide(failed(status=429, retry_after=told), settings) == Again(reason="429", delay=told)
        assert decide(DialFailed("x", retry_after=told), settings) == Again(
            reason="dial failed", delay=told, resend=False
        )
    assert decide(failed(status=429, retry_after=10.1), settings) == GiveUp()
    assert decide(DialFailed("x", retry_after=10.1), settings) == GiveUp()
    words = "Rate limit reached. Please try again in 7.5s. Visit ..."
    assert decide(failed(words, status=429), settings) == Again(reason="429", delay=7.5)
    assert decide(failed(words, status=429, retry_after=1.0), settings) == Again(reason="429", delay=1.0)
    assert decide(failed("Please try again in 6m0s.", status=429), settings) == GiveUp()


def test_our_own_wait_is_not_one_that_we_are_told() -> None:
    settings = SchedulerSettings(retry_after_max=0)
    assert decide(failed(status=429), settings) == Again(reason="429", delay=0.5)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 20ms.", 0.02),
        ("try again in 1.898s", 1.898),
        ("Try again in 2 seconds, please", 2.0),
        ("try again in 1 second", 1.0),
        ("try again in .5s", 0.5),
        ("try again in 3 minutes", 180.0),
        ("try again in 6m0s. Visit", 360.0),
        ("try again in 1m30.951s", 90.951),
        ("try again in 1h2m3s", 3723.0),
        ("try again in 1 hour", 3600.0),
        ("try again in 2 days", 172800.0),
        ("try again in 250 milliseconds", 0.25),
        ("try again in 10 sec", 10.0),
        ("try again in 5 min", 300.0),
        ("try again in 1 hr 5 mins", 3900.0),
        ("try again in 5 sheep", None),
        ("try again in 1.2.3s", None),
        ("try again in ...", None),
        ("try again in", None),
        ("try again later", None),
        ("in 5s", None),
        ("", None),
    ],
)
def test_delays_in_words(text: str, seconds: float | None) -> None:
    assert told_delay(text) == (None if seconds is None else pytest.approx(seconds))


@given(st.text("try again 0123456789.hmsd", max_size=40).map("try again in {}".format))
def test_any_words_are_a_delay_or_none(text: str) -> None:
    told = told_delay(text)
    assert told is None or told >= 0


@given(
    attempts=st.integers(1, 10_000),
    base=st.floats(0.001, 100),
    longest=st.floats(0.001, 1000),
    seed=st.integers(0, 2**32),
)
def test_backoff_doubles_is_bounded_and_jittered(
    attempts: int, base: float, longest: float, seed: int
) -> None:
    settings = SchedulerSettings(backoff=base, backoff_max=longest)
    delay = backoff(attempts, settings, random.Random(seed))
    whole = backoff(attempts, settings, FULL)
    assert 0.75 * whole <= delay <= whole <= longest
    assert whole == pytest.approx(min(longest, base * 2.0 ** min(attempts - 1, 16)))


@given(
    st.lists(
        st.sampled_from([STALE, AMBIGUOUS, CUT, *(error for error, *_ in [*FREE, *BACK_OFF])]), max_size=60
    )
)
def test_no_turn_is_tried_for_ever(errors: list[PoolError]) -> None:
    settings = SchedulerSettings(attempts=3, free_attempts=4)
    attempts = free = 1
    for error in errors:
        action = decide(error, settings, attempts=attempts, free=free)
        if isinstance(action, GiveUp):
            break
        attempts, free = attempts + action.costs_attempt, free + (not action.costs_attempt)
    assert attempts <= 3
    assert free <= 4

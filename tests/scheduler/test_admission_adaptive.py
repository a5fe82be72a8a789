"""The in-flight limit that refusals teach."""

from __future__ import annotations

import math

from scheduler.admission.adaptive import QUIET, AdaptiveLimit


def allowed(limit: AdaptiveLimit, now: float) -> int:
    """Return how many may be in flight."""
    return next(count for count in range(10_000) if limit.ready_at(count, now) > now)


def test_nothing_is_limited_before_a_refusal() -> None:
    limit = AdaptiveLimit()
    assert limit.idle
    for now in range(100):
        limit.succeeded(1000, float(now))
    assert limit.ready_at(100_000, 100.0) == 100.0


def test_a_refusal_halves_what_was_in_flight() -> None:
    limit = AdaptiveLimit()
    limit.limited(epoch=0, in_flight=20, retry_after=None, now=1.0)
    assert allowed(limit, 1.0) == 10
    assert limit.cuts == 1


def test_a_volley_counts_once() -> None:
    limit = AdaptiveLimit()
    for count in range(20, 0, -1):
        limit.limited(epoch=0, in_flight=count, retry_after=None, now=1.0)
    assert allowed(limit, 1.0) == 10
    limit.limited(epoch=1, in_flight=10, retry_after=None, now=2.0)
    assert allowed(limit, 2.0) == 5


def test_the_last_one_is_never_taken_away() -> None:
    limit = AdaptiveLimit()
    for epoch in range(10):
        limit.limited(epoch=epoch, in_flight=1, retry_after=None, now=float(epoch))
    assert allowed(limit, 10.0) == 1


def test_a_round_of_successes_at_the_limit_adds_one() -> None:
    limit = AdaptiveLimit()
    limit.limited(epoch=0, in_flight=8, retry_after=None, now=0.0)
    for expected in range(5, 40):
        for _ in range(expected):
            limit.succeeded(allowed(limit, 1.0), 1.0)
        assert allowed(limit, 1.0) == expected


def test_successes_below_the_limit_say_nothing() -> None:
    limit = AdaptiveLimit()
    limit.limited(epoch=0, in_flight=16, retry_after=None, now=0.0)
    for _ in range(100):
        limit.succeeded(3, 1.0)
    assert allowed(limit, 1.0) == 8


def test_everybody_waits_as_long_as_the_server_said() -> None:
    limit = AdaptiveLimit()
    limit.limited(epoch=0, in_flight=4, retry_after=7.0, now=10.0)
    limit.limited(epoch=0, in_flight=4, retry_after=2.0, now=10.0)
    assert limit.ready_at(0, 10.0) == 17.0
    assert limit.ready_at(2, 10.0) == math.inf  # another has to end first, then one will see
    assert limit.ready_at(0, 17.0) == 17.0


def test_it_is_forgotten_when_it_binds_nobody_and_all_is_quiet() -> None:
    limit = AdaptiveLimit()
    limit.limited(epoch=0, in_flight=64, retry_after=None, now=0.0)
    limit.succeeded(1, QUIET - 1)
    assert allowed(limit, QUIET - 1) == 32
    limit.succeeded(32, QUIET + 1)  # it binds: grow, but don't let go
    assert limit.limit < math.inf
    limit.succeeded(1, QUIET + 1)
    assert limit.limit == math.inf


def test_the_first_turn_after_a_quiet_night_finds_no_limit() -> None:
    limit = AdaptiveLimit()
    limit.limited(epoch=0, in_flight=8, retry_after=None, now=0.0)
    assert limit.ready_at(0, QUIET) == QUIET
    assert limit.ready_at(1000, QUIET) == QUIET


def test_switched_off_it_learns_nothing() -> None:
    limit = AdaptiveLimit(enabled=False)
    limit.limited(epoch=0, in_flight=8, retry_after=30.0, now=0.0)
    assert limit.idle

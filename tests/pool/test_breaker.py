"""The breaker over dials."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.breaker import Breaker, BreakerState


def breaker(threshold: int = 3, cooldown: float = 10.0, longest: float = 60.0) -> Breaker:
    return Breaker(threshold, cooldown, longest, random.Random(1))


def test_it_opens_after_failures_in_a_row() -> None:
    one = breaker()
    for _ in range(5):
        one.failed(0.0)
        one.failed(0.0)
        one.succeeded()
    assert one.closed
    assert one.ready_at(7.0) == 7.0
    for _ in range(3):
        one.take(7.0)
        one.failed(7.0)
    assert one.state is BreakerState.OPEN
    assert 7.0 + 7.5 <= one.ready_at(7.0) <= 7.0 + 12.5


def test_one_hopeless_failure_is_enough() -> None:
    one = breaker()
    one.failed(0.0, hopeless=True)
    assert not one.closed


def test_a_single_probe() -> None:
    one = breaker(threshold=1)
    one.failed(0.0)
    due = one.ready_at(0.0)
    with pytest.raises(AssertionError):
        one.take(due - 0.1)
    one.take(due)
    assert one.state is BreakerState.HALF_OPEN
    assert one.ready_at(due + 1000) == math.inf
    with pytest.raises(AssertionError):
        one.take(due)
    one.succeeded()
    assert one.closed
    assert one.failures == 0


def test_failed_probes_wait_longer_and_never_for_ever() -> None:
    one, now, waits = breaker(threshold=1), 0.0, []
    one.failed(now)
    for _ in range(40):
        waits.append(one.ready_at(now) - now)
        now = one.ready_at(now)
        one.take(now)
        one.failed(now)
    assert waits[1] > waits[0] * 1.2
    assert max(waits) <= 60 * 1.25
    assert min(waits[5:]) >= 60 * 0.75
    now = one.ready_at(now)
    one.take(now)
    one.succeeded()
    one.failed(now)
    assert one.ready_at(now) - now <= 12.5  # success has made it forget


def test_a_withdrawn_probe_lets_another_one_go() -> None:
    one = breaker(threshold=1)
    one.withdrawn()
    assert one.closed
    one.failed(0.0)
    now = one.ready_at(0.0)
    one.take(now)
    one.withdrawn()
    assert one.ready_at(now) == now


def test_dials_that_began_before_it_opened() -> None:
    one = breaker(threshold=2)
    for _ in range(2):
        one.failed(0.0)
    due = one.ready_at(0.0)
    one.failed(5.0)  # a straggler: neither extends the cooldown nor counts as a probe
    assert one.ready_at(5.0) == due
    one.succeeded()
    assert one.closed


@given(st.lists(st.sampled_from(["dial", "succeed", "fail", "hopeless", "withdraw", "wait"]), max_size=60))
def test_it_always_comes_back(steps: list[str]) -> None:
    one, now = breaker(), 0.0
    for step in steps:
        match step:
            case "dial" if one.ready_at(now) <= now:
                one.take(now)
            case "succeed":
                one.succeeded()
            case "fail":
                one.failed(now)
            case "hopeless":
                one.failed(now, hopeless=True)
            case "withdraw":
                one.withdrawn()
            case "wait":
                now += 5.0
        if one.state is not BreakerState.HALF_OPEN:
            assert one.ready_at(now) <= now + 60 * 1.25

"""How fast the pool dials."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.pacing import FLOOR, LONGEST, SHORTEST, Pacer


def pacer(base: float = 10.0, burst: int = 3) -> Pacer:
    return Pacer(base, burst, random.Random(1))


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    pace = pacer(base=10.0, burst=3)
    starts = []
    now = 0.0
    for _ in range(6):
        now = max(now, pace.ready_at(now))
        pace.take(now)
        starts.append(round(now, 6))
    assert starts == [0.0, 0.0, 0.0, 0.1, 0.2, 0.3]


def test_what_is_not_used_is_saved_up_to_the_burst() -> None:
    pace = pacer(base=1.0, burst=2)
    pace.take(0.0)
    pace.take(0.0)
    assert pace.ready_at(0.0) == 1.0
    pace.take(1000.0)
    pace.take(1000.0)
    assert pace.ready_at(1000.0) == 1001.0


@pytest.mark.parametrize("status", [403, 429])
def test_too_many_halves_the_rate_and_empties_the_bucket(status: int) -> None:
    pace = pacer(base=8.0, burst=100)
    pace.failed(0.0, status=status, retry_after=0.0)
    assert pace.rate == 4.0
    assert pace.ready_at(0.0) == 0.25


@pytest.mark.parametrize("status", [None, 401, 503])
def test_any_other_failure_only_holds_back(status: int | None) -> None:
    pace = pacer(base=8.0)
    pace.failed(0.0, status=status, retry_after=None)
    assert pace.rate == 8.0
    assert SHORTEST * 0.75 <= pace.ready_at(0.0) <= SHORTEST * 1.25


def test_the_rate_has_a_floor_and_recovers_by_a_tenth_at_a_success() -> None:
    pace = pacer(base=8.0)
    for _ in range(20):
        pace.failed(0.0, status=429, retry_after=None)
    assert pace.rate == 8.0 * FLOOR
    for _ in range(5):
        pace.succeeded()
    assert pace.rate == pytest.approx(8.0 * FLOOR + 4.0)
    for _ in range(50):
        pace.succeeded()
    assert pace.rate == 8.0


def test_failures_in_a_row_hold_back_twice_as_long_each() -> None:
    pace = pacer(base=1000.0)
    holds, now = [], 0.0
    for _ in range(12):
        pace.failed(now, status=None, retry_after=None)
        holds.append(pace.ready_at(now) - now)
        now = pace.ready_at(now)
    nominal = [min(SHORTEST * 2**index, LONGEST) for index in range(12)]
    assert all(0.74 < hold / wish < 1.26 for hold, wish in zip(holds, nominal, strict=True))


def test_a_success_forgives() -> None:
    pace = pacer()
    for _ in range(8):
        pace.failed(0.0, status=None, retry_after=None)
    pace.succeeded()
    assert (pace.failures, pace.ready_at(0.0)) == (0, 0.0)


def test_a_server_that_says_when_is_believed_and_never_shortened() -> None:
    pace = pacer()
    pace.failed(0.0, status=429, retry_after=60.0)
    pace.failed(1.0, status=None, retry_after=None)
    assert pace.ready_at(1.0) == 60.0


def test_the_hold_is_jittered() -> None:
    holds = set()
    for seed in range(20):
        pace = Pacer(10.0, 3, random.Random(seed))
        pace.failed(0.0, status=None, retry_after=None)
        holds.add(pace.ready_at(0.0))
    assert len(holds) == 20


def test_new_settings_keep_what_refusals_taught() -> None:
    pace = pacer(base=8.0, burst=10)
    pace.failed(0.0, status=429, retry_after=0.0)
    pace.retune(20.0, 5)
    assert (pace.base, pace.rate) == (20.0, 10.0)
    assert pace.ready_at(0.0) == 0.1


def test_a_dial_before_its_time_is_our_own_bug() -> None:
    pace = pacer(burst=1)
    pace.take(0.0)
    with pytest.raises(AssertionError):
        pace.take(0.0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0.0, 50.0)),
        st.tuples(st.just("dial"), st.just(0.0)),
        st.tuples(st.just("ok"), st.just(0.0)),
        st.tuples(st.sampled_from(["fail", "refused"]), st.none() | st.floats(0.0, 100.0)),
    ),
    max_size=60,
)


@given(base=st.floats(0.01, 1000.0), burst=st.integers(1, 20), steps=STEPS)
def test_whatever_happens_the_pace_stays_in_bounds(
    base: float, burst: int, steps: list[tuple[str, float | None]]
) -> None:
    pace = Pacer(base, burst, random.Random(3))
    now, first, taken = 0.0, 0.0, 0
    for kind, value in steps:
        match kind:
            case "wait":
                now += value or 0.0
            case "dial":
                ready = pace.ready_at(now)
                assert math.isfinite(ready)
                assert ready >= now
                now = ready
                pace.take(now)
                taken += 1
            case "ok":
                pace.succeeded()
            case _:
                pace.failed(now, status=429 if kind == "refused" else None, retry_after=value)
        assert base * FLOOR <= pace.rate <= base
        assert -1e-6 <= pace._tokens <= burst
        assert taken <= burst + (now - first) * base + 1e-6, "faster than the settings allow"


@given(now=st.floats(0.0, 1e9), base=st.floats(0.001, 1000.0))
def test_who_wakes_when_told_may_dial(now: float, base: float) -> None:
    """However coarse the clock is: otherwise the timer would ring again and again."""
    pace = Pacer(base, 1, random.Random(0))
    pace.take(now)
    wake = pace.ready_at(now)
    assert pace.ready_at(wake) <= wake


def test_connections_that_open_and_close_at_once_slow_the_dialling() -> None:
    pace = pacer()
    holds = []
    for _ in range(20):
        pace.succeeded()
        pace.flapped(100.0)
        pace.succeeded()
        holds.append(pace.ready_at(100.0) - 100.0)
    assert holds[0] <= SHORTEST * 1.25
    assert holds[-1] >= LONGEST * 0.75
    pace.steady()
    pace.succeeded()
    pace.flapped(200.0)
    assert pace.ready_at(200.0) - 200.0 <= SHORTEST * 1.25

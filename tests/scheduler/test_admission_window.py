"""Budgets: never more than the limit in any sixty seconds."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from scheduler.admission.window import SPAN, Window

STEPS = st.lists(
    st.tuples(st.floats(0.0, 30.0), st.integers(0, 150), st.integers(0, 150)), min_size=1, max_size=60
)


@given(steps=STEPS)
def test_no_window_of_a_minute_holds_more_than_the_limit(steps: list[tuple[float, int, int]]) -> None:
    window, now, charged = Window(100), 0.0, list[tuple[float, int]]()
    for wait, amount, _actual in steps:
        now += wait
        if window.fits(amount, now):
            charged.append((now, window.charge(amount, now).amount))
    for start, _amount in charged:
        assert sum(amount for when, amount in charged if start <= when < start + SPAN) <= 100


@given(steps=STEPS)
def test_real_usage_below_the_estimates_stays_within_the_limit_too(
    steps: list[tuple[float, int, int]],
) -> None:
    window, now, spent = Window(100), 0.0, list[tuple[float, int]]()
    for wait, amount, actual in steps:
        now += wait
        if window.fits(amount, now):
            charge = window.charge(amount, now)
            used = min(actual, charge.amount)
            window.correct(charge, used, now)
            spent.append((now, used))
    for start, _amount in spent:
        assert sum(amount for when, amount in spent if start <= when < start + SPAN) <= 100


@given(steps=STEPS, amount=st.integers(0, 150))
def test_ready_at_is_when_it_fits_and_not_before(steps: list[tuple[float, int, int]], amount: int) -> None:
    window, now = Window(100), 0.0
    for wait, size, _actual in steps:
        now += wait
        if window.fits(size, now):
            window.charge(size, now)
    ready = window.ready_at(amount, now)
    assert ready >= now
    if ready > now:
        assert not window.fits(amount, math.nextafter(ready, now))
    assert window.fits(amount, ready)


def test_a_lower_usage_gives_room_at_once() -> None:
    window = Window(100)
    charge = window.charge(100, 0.0)
    assert not window.fits(1, 10.0)
    window.correct(charge, 40, 10.0)
    assert window.fits(60, 10.0)
    assert not window.fits(61, 10.0)


def test_a_higher_usage_is_charged_when_it_is_known() -> None:
    window = Window(100)
    charge = window.charge(10, 0.0)
    window.correct(charge, 90, 30.0)
    assert window.used == 90
    assert window.fits(20, 60.0)  # the first ten have left
    assert not window.fits(21, 60.0)
    assert window.ready_at(100, 60.0) == 90.0


def test_a_correction_after_the_minute_gives_nothing_back() -> None:
    window = Window(100)
    old = window.charge(100, 0.0)
    window.charge(100, 60.0)
    window.correct(old, 0, 61.0)
    assert window.used == 100


def test_what_is_above_the_whole_limit_goes_alone() -> None:
    window = Window(100)
    window.charge(1, 0.0)
    assert not window.fits(500, 59.0)
    assert window.fits(500, 60.0)
    window.charge(500, 60.0)
    assert not window.fits(1, 119.0)
    assert window.next_change() == 120.0


def test_an_empty_window_has_no_next_change() -> None:
    assert Window(1).next_change() == math.inf

"""The budget of replayed tokens."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.budget import ReplayBudget


def test_a_minute_at_once_then_at_its_rate() -> None:
    budget = ReplayBudget(6000)
    assert budget.wait(0.0) == 0
    budget.spend(5999, 0.0)
    assert budget.wait(0.0) == 0
    budget.spend(1000, 0.0)  # the last one may overdraw
    assert budget.wait(0.0) == pytest.approx(10.0)
    assert budget.wait(4.0) == pytest.approx(6.0)
    assert budget.wait(10.0) == 0
    assert budget.spent == 6999


def test_it_holds_no_more_than_a_minute() -> None:
    budget = ReplayBudget(60)
    budget.spend(1, 0.0)
    budget.spend(60, 10_000.0)
    assert budget.wait(10_000.0) == pytest.approx(1.0)


def test_no_bound() -> None:
    budget = ReplayBudget(math.inf)
    budget.spend(10**12, 0.0)
    assert budget.wait(0.0) == 0
    assert budget.spent == 10**12


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=200))
def test_never_more_than_the_rate_and_one_context(costs: list[int]) -> None:
    budget, now, spent = ReplayBudget(3000), 0.0, 0
    for cost in costs:
        wait = budget.wait(now)
        assert 0 <= wait <= 60 * (5000 + 2) / 3000
        now += wait
        assert budget.wait(now) == 0
        budget.spend(cost, now)
        spent += cost
        assert spent <= 3000 + now * 50 + 5000

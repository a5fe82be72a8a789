"""What is held is within the limit of all and the share of each, and is free again when its account is closed."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pool.body_budget import BodyBudget, BudgetExceeded


def test_one_payer_uses_up_its_share_and_no_more() -> None:
    budget = BodyBudget(limit=100, share=60)
    with budget.account("a") as mine, budget.account("b") as theirs:
        mine.grow(60)
        with pytest.raises(BudgetExceeded) as refused:
            mine.grow(1)
        assert not refused.value.all_used
        theirs.grow(40)
        with pytest.raises(BudgetExceeded) as refused:
            theirs.grow(1)
        assert refused.value.all_used
        mine.shrink(1)
        theirs.grow(1)
        assert (budget.held, budget.refused, budget.most) == (100, 2, 100)
    assert budget.held == 0


def test_an_account_is_closed_by_a_failure_as_well() -> None:
    budget = BodyBudget(limit=10, share=10)
    account = budget.account("a")
    account.grow(10)
    with pytest.raises(ZeroDivisionError), account:
        raise ZeroDivisionError
    assert (budget.held, account.held) == (0, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 80), st.sampled_from(["grow", "shrink", "close"]))
    )
)
def test_nothing_is_lost_or_found(steps: list[tuple[str, int, str]]) -> None:
    budget = BodyBudget(limit=150, share=100)
    accounts = {name: budget.account(name[0]) for name in "abc"}
    for name, size, what in steps:
        account = accounts[name]
        if what == "grow":
            before = account.held
            try:
                account.grow(size)
            except BudgetExceeded:
                assert account.held == before
                assert budget.held + size > 150 or before + size > 100
        elif what == "shrink":
            account.shrink(min(size, account.held))
        else:
            account.close()
        assert budget.held == sum(one.held for one in accounts.values()) <= 150
        assert all(one.held <= 100 for one in accounts.values())

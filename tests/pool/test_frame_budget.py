"""What carries nothing is bounded by the second; whatever a decent client does never comes near the bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pool.wire.frame_budget import BURST, FREE, RATE, FrameBudget

MIB = 1 << 20


def test_so_many_at_once_and_then_so_many_a_second() -> None:
    budget = FrameBudget(rate=10, burst=100)
    assert [budget.take(0.0) for _ in range(101)] == [True] * 100 + [False]
    budget = FrameBudget(rate=10, burst=100)
    assert all(budget.take(0.0) for _ in range(100))
    assert all(budget.take(2.0) for _ in range(20))
    assert not budget.take(2.0)


def test_what_is_saved_up_is_bounded() -> None:
    budget = FrameBudget(rate=10, burst=100)
    budget.take(0.0, payload=MIB)
    assert sum(budget.take(1e6) for _ in range(200)) == 100


@given(st.integers(FREE, 100_000))
def test_a_message_in_larger_fragments_is_never_refused(payload: int) -> None:
    budget = FrameBudget()
    assert all(budget.take(0.0, payload) for _ in range(min(20_000, 16 * MIB // payload)))


def test_decent_clients() -> None:
    keepalive = FrameBudget()
    assert all(keepalive.take(second, payload=0) for second in range(100_000)), "a ping each second"
    browser = FrameBudget()
    for second in range(3):
        for size in (1024, 4096, 131_072):
            assert all(browser.take(second, size) for _ in range(16 * MIB // size)), (
                "16 MB at once, in fragments"
            )
    dribbling = FrameBudget()
    assert all(dribbling.take(number / 100, payload=5) for number in range(100_000)), (
        "a hundred small ones a second"
    )


def test_frames_that_only_wait() -> None:
    budget = FrameBudget(rate=100, burst=100)
    assert budget.owed(0.0, 100) == 0
    assert budget.owed(0.0, 50) == 0.5
    assert budget.owed(0.5, 0) == 0
    assert budget.owed(1.5, 100) == 0


def test_the_defaults_are_far_above_and_far_below() -> None:
    assert RATE >= 100
    assert BURST <= 10_000

"""The last quarter of an hour, from samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.stats import Distribution, PoolStats
from scheduler.dashboard.history import KEPT, STEP, History, Recent
from scheduler.stats import ModelStats, SchedulerStats


def stats(
    *turns: float, lost: int = 0, placements: dict[str, int] | None = None, age: float = 3600.0
) -> SchedulerStats:
    """Return a scheduler's statistics after turns of these lengths."""
    reasons = {"hot": len(turns)} if placements is None else placements
    model = ModelStats(placements=reasons, turn=Distribution.of_seconds(turns))
    pool = PoolStats(seconds=age, losses={"silent": lost} if lost else {})
    return SchedulerStats(models={"m": model}, pool=pool)


def add(history: History, now: float, sample: SchedulerStats) -> None:
    """Take a sample in which the rest does not matter."""
    history.add(sample, busy=3, usable=4, waiting=1, now=now)


def test_a_row_tells_of_its_step_alone() -> None:
    history = History()
    add(history, 0.0, stats(9.0))
    add(history, 5.0, stats(9.0, 0.2, 0.4, lost=1))
    (row,) = history.rows
    assert row.turn is not None
    assert list(row.turn) == pytest.approx([0.2, 0.4], rel=0.002)
    assert (row.turns, row.hot, row.lost, row.busy, row.usable, row.waiting) == (2, 2, 1, 3, 4, 1)


def test_a_step_without_turns_has_no_percentiles() -> None:
    history = History()
    add(history, 0.0, stats(9.0))
    add(history, 5.0, stats(9.0))
    (row,) = history.rows
    assert (row.turn, row.turns) == (None, 0)
    assert row.to_json() == [None] * 6 + [3, 4, 1, 0, 0, 0]


def test_it_forgets_what_is_older_than_a_quarter_of_an_hour() -> None:
    history = History()
    for number in range(int(KEPT / STEP) + 20):
        add(history, number * STEP, stats())
    assert len(history.rows) == KEPT / STEP
    assert history.rows[-1].at - history.rows[0].at < KEPT


def test_the_last_minute_is_a_subtraction() -> None:
    history = History()
    add(history, 0.0, stats(placements={"replay:new": 5}))
    add(history, 30.0, stats(placements={"replay:new": 5, "hot": 10}))
    later = stats(placements={"replay:new": 6, "hot": 12, "hydrated": 1, "replay:lost": 2}, lost=3)
    recent = history.recent(later, now=80.0)
    assert recent.seconds == 50.0, "the sample at 0 is older than a minute"
    assert (recent.turns, recent.hot, recent.returning, recent.lost) == (6, 3, 5, 3)
    assert history.recent(later, now=55.0).turns == 16


def test_without_samples_nothing_is_known() -> None:
    assert History().recent(stats(1.0), now=9.0) == Recent(seconds=0.0)


def test_what_a_young_scheduler_did_before_its_first_sample_counts() -> None:
    history = History()
    assert history.recent(stats(0.2, age=1.0), now=11.0) == Recent(
        seconds=STEP, turns=1, placements={"hot": 1}
    ), "and is not taken for sixty a minute"
    add(history, 13.0, stats(0.2, 0.4, age=3.0))
    (row,) = history.rows
    assert row.turns == 2
    assert row.turn is not None
    assert list(row.turn) == pytest.approx([0.2, 0.4], rel=0.002)
    recent = history.recent(stats(0.2, 0.4, 0.4, age=40.0), now=50.0)
    assert (recent.seconds, recent.turns) == (40.0, 3)


@given(st.lists(st.lists(st.floats(0.001, 100.0), max_size=5), min_size=2, max_size=12))
def test_the_rows_add_up(steps: list[list[float]]) -> None:
    history, so_far = History(), list[float]()
    for number, turns in enumerate(steps):
        so_far += turns
        add(history, number * STEP, stats(*so_far))
    assert sum(row.turns for row in history.rows) == len(so_far) - len(steps[0])
    for row, turns in zip(history.rows, steps[1:], strict=True):
        assert (row.turn is None) == (not turns)
        if row.turn is not None:
            p50, p99 = row.turn
            assert p50 <= p99
            assert p99 == pytest.approx(max(turns), rel=0.002)

"""Snapshots of latency histograms."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool.stats import Summary
from pool.stats.recorder import histogram, record


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 5000), min_size=1, max_size=50))
def test_a_summary_is_what_the_library_says(seconds: list[float]) -> None:
    recorded = histogram()
    for value in seconds:
        record(recorded, value)
    summary = Summary.of(recorded)
    assert summary.count == len(seconds)
    assert summary.mean == pytest.approx(recorded.get_mean_value() / 1e6)
    for name, percentile in (("p50", 50.0), ("p90", 90.0), ("p99", 99.0)):
        assert getattr(summary, name) == recorded.get_value_at_percentile(percentile) / 1e6
    assert summary.max == recorded.get_max_value() / 1e6


def test_a_summary_of_nothing() -> None:
    assert Summary.of(histogram()) == Summary()


def test_a_summary_does_not_hold_up_the_event_loop() -> None:
    recorded = histogram()
    for value in range(1, 500):
        record(recorded, value / 3)
    began = time.process_time()
    for _ in range(20):
        Summary.of(recorded)
    assert time.process_time() - began < 0.4  # the library's own percentiles need two seconds for this

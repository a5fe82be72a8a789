"""Reads of a busy connection are bunched; those of a quiet one never wait."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pool.bunching import Bunching

INTERVAL = 0.001


def played(reads: list[tuple[float, int]], interval: float = INTERVAL) -> list[float]:
    """Return the pause after each of these reads: (seconds since the last one, messages)."""
    bunching, now, pauses = Bunching(interval), 0.0, list[float]()
    for gap, messages in reads:
        now += gap
        bunching.read(messages, now)
        pauses.append(bunching.pause(now))
    return pauses


def test_who_speaks_now_and_then_is_never_kept_waiting() -> None:
    assert played([(0.02, 1), (0.0006, 2), (0.01, 30)]) == [0.0, 0.0, 0.0]


def test_two_reads_in_a_row_begin_it() -> None:
    assert played([(1.0, 1), (0.0001, 1)]) == [0.0, pytest.approx(INTERVAL)]


def test_it_goes_on_while_a_read_brings_several_and_ends_with_the_first_that_does_not() -> None:
    pauses = played([(1.0, 1), (0.0001, 1), (INTERVAL, 3), (INTERVAL, 2), (INTERVAL, 1), (INTERVAL, 1)])
    assert [pause > 0 for pause in pauses] == [False, True, True, True, False, False]


def test_time_that_has_passed_counts() -> None:
    bunching = Bunching(INTERVAL)
    bunching.read(1, 5.0)
    bunching.read(1, 5.0001)
    assert bunching.pause(5.0006) == pytest.approx(0.0005)
    assert bunching.pause(6.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 50)), max_size=30))
def test_no_pause_is_longer_than_the_interval(reads: list[tuple[float, int]]) -> None:
    assert all(0 <= pause <= INTERVAL + 1e-9 for pause in played(reads))


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 50)), max_size=30))
def test_an_interval_of_nothing_never_waits(reads: list[tuple[float, int]]) -> None:
    assert not any(played(reads, 0.0))

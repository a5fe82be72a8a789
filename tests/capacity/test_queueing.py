"""The textbook, by its own examples."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.capacity.queueing import Queue, erlang_c, interval


def test_erlang_c() -> None:
    assert erlang_c(1, 0.5) == pytest.approx(0.5)  # M/M/1: the utilisation
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(10, 8.0) == pytest.approx(0.4092, abs=1e-4)  # Gross and Harris
    assert (erlang_c(3, 0.0), erlang_c(3, 3.0), erlang_c(3, 9.0)) == (0.0, 1.0, 1.0)
    assert 0 < erlang_c(5000, 4900.0) < 1


@given(servers=st.integers(1, 200), use=st.floats(0.01, 0.99))
def test_another_server_makes_nobody_wait_longer(servers: int, use: float) -> None:
    offered = servers * use
    assert erlang_c(servers + 1, offered) <= erlang_c(servers, offered) <= 1.0


def test_a_queue() -> None:
    queue = Queue(servers=1, rate=0.5, service=1.0)
    assert queue.offered == 0.5
    assert queue.mean_wait == pytest.approx(1.0)
    assert queue.wait(0.4) == 0.0
    assert queue.wait(0.99) == pytest.approx(math.log(50) / 0.5)
    full = Queue(servers=1, rate=1.0, service=1.0)
    assert (full.mean_wait, full.wait(0.5)) == (math.inf, math.inf)


def test_confidence() -> None:
    low, high = interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2.0)
    assert high - low == pytest.approx(2 * 4.303 / math.sqrt(3))
    assert interval([5.0]) == (-math.inf, math.inf)
    assert interval([1.0, math.inf]) == (-math.inf, math.inf)

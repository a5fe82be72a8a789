"""A plan is true: record a load, plan from the recording, run the plan on the emulator, and compare.

Everything but the kernel is real. `python -m bench.capacity` does the same for longer and for more cases; its figures
are in docs/capacity.md. The bounds here are wide enough for runs this short: a few hundred turns decide a p99.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from bench.capacity import CASES, Case, compare
from pool.settings import Lanes
from scheduler.capacity.search import Target

CASE = {case.name: case for case in CASES}


@pytest.mark.parametrize(
    "case",
    [
        evolve(CASE["hot"], target=Target(p99_wait=0.5, hot=0.8)),
        evolve(CASE["short lives"], max_age=60.0, lanes=Lanes.multi(in_flight=4, named=8)),
    ],
    ids=["single", "multi, short lives"],
)
def test_what_was_foreseen_comes(case: Case, tmp_path: Path) -> None:
    planned, (came,) = compare(case, tmp_path, runs=100, repeat=1, seed=1, turns=2000, seeds=2)
    outcome, stats = planned.outcome, came.stats
    assert planned.met
    assert stats.turns > 400
    assert stats.turns / came.seconds == pytest.approx(outcome.turns / outcome.seconds, rel=0.25)
    assert came.hot == pytest.approx(outcome.hot, abs=0.12)
    assert stats.wait.p50 == pytest.approx(outcome.p50, abs=0.02)
    assert abs(stats.wait.p99 - outcome.p99) < 0.5
    assert abs(stats.wait.mean - outcome.mean_wait) < 0.05
    pool = stats.pool
    assert pool.open + pool.leaving + pool.draining <= planned.connections + 3
    assert pool.rotated / came.seconds == pytest.approx(outcome.rotated / outcome.seconds, rel=0.5, abs=0.02)

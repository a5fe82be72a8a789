"""What a fleet shows: numbers in words, within 80 columns."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.stats import Summary
from pool.wire.codec import to_json
from scheduler.fleet.progress import Progress
from scheduler.fleet.report import (
    WHY,
    Connections,
    FleetReport,
    Runs,
    duration,
    percent,
    plural,
    size,
)
from scheduler.stats import SchedulerStats
from scheduler.turns import Usage

FULL = FleetReport(
    runs=Runs(total=1200, completed=1000, failed=100, cancelled=20, skipped=30),
    seconds=3661.5,
    endpoint="openai",
    turns=123_456,
    placements={"hot": 120_000, "replay:new": 1100, "replay:rotated": 2355, "replay:odd": 1},
    retries={"stale socket": 12, "lost in mid-response": 3},
    tools_executed=250_000,
    tools_failed=17,
    connections=Connections(opened=120, lost=12, rotated=80),
    first_event=Summary(count=5, mean=0.4, p50=0.0412, p90=0.412, p99=4.12, max=412.0),
    turn=Summary(count=5, mean=4, p50=1, p90=2, p99=30, max=4000),
    bytes_sent=123_456_789,
    bytes_saved=9_876_543_210,
    tokens_saved=1_234_567_890,
    usage=Usage(input_tokens=2_000_000_000, cached_tokens=1_500_000_000, output_tokens=3_000_000),
    results_file="reviews.jsonl",
)


def test_the_report_fits_80_columns_and_says_it_all() -> None:
    text = FULL.to_text()
    assert max(map(len, text.splitlines())) <= 80
    for words in (
        "1,200 runs on openai in 1:01:02 h: 1,000 completed, 100 failed\n",
        "other runs   20 cancelled, 30 done before, 50 not started",
        "33.7 a second",
        "250,000 calls executed, 17 with an error for the model",
        "97%  hot",
        "1%  replay:odd",
        "120 opened, 12 lost, 80 rotated",
        "12  stale socket",
        "p50 41 ms",
        "max 6:52 min",
        "123 MB sent instead of 10.0 GB: 99% saved",
        "1,234,567,890 input tokens did not travel again",
        "(75% cached)",
        "reviews.jsonl",
    ):
        assert words in text


def test_every_documented_reason_is_explained() -> None:
    text = (Path(__file__).parents[2] / "docs" / "conversations.md").read_text()
    assert set(re.findall(r"`((?:replay|http):\w+)`", text)) <= set(WHY)


def test_every_reason_is_explained_within_the_line() -> None:
    text = attrs.evolve(FULL, placements=dict.fromkeys(WHY, 1_000_000)).to_text()
    assert max(map(len, text.splitlines())) <= 80


def test_an_empty_report_is_short() -> None:
    text = FleetReport(runs=Runs(total=3, skipped=3), seconds=0.0, endpoint="openai").to_text()
    assert text.splitlines()[0] == "3 runs on openai in 0 ms: 0 completed"
    assert "3 done before" in text
    assert "bytes" not in text
    assert "results" not in text


def test_the_json_has_what_scripts_read() -> None:
    value = FULL.to_json()
    assert value["runs"] == {
        "total": 1200,
        "completed": 1000,
        "failed": 100,
        "cancelled": 20,
        "skipped": 30,
        "not_started": 50,
    }
    assert value["tools"] == {"executed": 250_000, "failed": 17}
    assert value["connections"] == {"opened": 120, "lost": 12, "rotated": 80}
    assert value["placements"]["hot"] == 120_000
    assert value["first_event"]["p50"] == 0.0412
    assert value["interrupted"] is False
    assert attrs.evolve(FULL, signal=2).to_json()["interrupted"] is True
    assert value["stats"] is None
    stats = SchedulerStats(retries={"overloaded": 2})
    assert SchedulerStats.from_json(attrs.evolve(FULL, stats=stats).to_json()["stats"]) == stats
    to_json(value)


@pytest.mark.parametrize(
    ("runs", "error", "ok"),
    [
        (Runs(total=2, completed=2), None, True),
        (Runs(total=2, completed=1, skipped=1), None, True),
        (Runs(total=2, completed=1), None, False),
        (Runs(total=2, completed=1, failed=1), None, False),
        (Runs(total=2, completed=2), "disk full", False),
    ],
)
def test_well_is_when_every_task_is_completed(runs: Runs, error: str | None, ok: bool) -> None:
    assert FleetReport(runs=runs, seconds=1, error=error).ok is ok


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.0004, "0.4 ms"),
        (0.0431, "43 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (99.4, "99.4 s"),
        (99.6, "1:40 min"),
        (3599.6, "1:00:00 h"),
        (36_000, "10:00:00 h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_600, "100 kB"),
        (24_600_000, "24.6 MB"),
        (10**12, "1.0 TB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes(number: int, words: str) -> None:
    assert size(number) == words


def test_shares_and_plurals() -> None:
    assert [percent(*pair) for pair in ((0, 0), (0, 5), (1, 1000), (999, 1000), (5, 5))] == [
        "0%",
        "0%",
        "1%",
        "99%",
        "100%",
    ]
    assert (plural(1, "run"), plural(2000, "run")) == ("1 run", "2,000 runs")


def test_progress_in_words() -> None:
    early = Progress(total=120)
    assert (early.rate, early.remaining, early.eta) == (0.0, None, "-:--")
    assert early.to_line() == "0/120 runs, 0 running, 0 turns (0.0/s), 0% hot"
    some = Progress(total=120, ended=30, failed=2, running=8, turns=200, hot=150, elapsed=10, note="stopping")
    assert some.eta == "0:30"
    assert some.to_line() == (
        "30/120 runs, 2 failed, 8 running, 200 turns (20.0/s), 75% hot, 0:30 left, stopping"
    )
    assert some.facts() == "20.0 turns/s, 75% hot, 8 running, 2 failed"
    assert Progress(total=100_000, ended=10, elapsed=10).eta == "27:46:30"
    assert Progress(total=5, ended=5, elapsed=1).to_line().endswith("hot")


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.floats(0, 1e7),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
)
def test_progress_never_fails(total: int, ended: int, elapsed: float, turns: int, hot: int) -> None:
    moment = Progress(total=total + ended, ended=ended, elapsed=elapsed, turns=turns, hot=hot)
    assert moment.facts()
    assert moment.to_line()
    assert moment.eta

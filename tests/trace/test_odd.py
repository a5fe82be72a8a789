"""The slow and the odd: one trace for each kind, and one in which nothing is odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.emulator import EmulatorSettings
from scheduler.trace.odd import FEW, Finding, odd, percentile
from scheduler.trace.tell import story_of
from tests.trace.support import loops, record, story, turn_lines

ENDED = {"at": 3.0, "what": "ended", "conn": "c1", "lost": True, "code": 1006, "age": 3.0}


def found(kind: str, *lines: dict[str, Any]) -> list[Finding]:
    every = odd(story(*lines))
    return [one for one in every if one.kind == kind]


def test_nothing_odd(tmp_path: Path) -> None:
    path = record(
        tmp_path / "t", loops(3, script=lambda _: "calls=3"), server=EmulatorSettings(latency="typical")
    )
    assert odd(story_of(path)) == []


def test_a_slow_turn_says_where_its_time_went() -> None:
    usual = [line for number in range(1, FEW + 1) for line in turn_lines("task", number, number * 2.0)]
    slow = turn_lines("slow", 1, 1.5, first=7.0, seconds=9.0, lane="c2/lane-01")
    (one,) = found("slow turn", *usual, *slow)
    assert one.text == "turn 1 of slow took 9.00 s (median 1.00 s): 7.00 s of it waiting for the first event"
    assert (one.conv, one.conn, one.weight) == ("slow", "c2", 9.0)
    assert found("slow turn", *slow) == [], "a percentile of one turn is none"


def test_a_replay_that_is_not_the_first_turn() -> None:
    lines = [
        *turn_lines("task", 1, 0.0, reason="replay:new"),
        *turn_lines("task", 2, 2.0, reason="replay:stolen"),
    ]
    (one,) = found("replay", *lines)
    assert one.text == (
        "turn 2 of task sent 300 B instead of a delta (replay:stolen): lanes were scarce, and another conversation "
        "was given its lane"
    )


def test_a_lost_connection_names_who_was_on_it() -> None:
    (one,) = found(
        "lost connection",
        *turn_lines("neighbour", 1, 0.0, lane="c1/lane-02"),
        *turn_lines("gone", 1, 0.0, lane="c1/lane-03"),
        *turn_lines("elsewhere", 1, 0.0, lane="c2/lane-02"),
        *turn_lines("task", 1, 2.0, ended=False),
        {**ENDED, "cut": ["task"]},
        *turn_lines("neighbour", 2, 4.0, lane="c3/lane-01"),
    )
    assert one.text == (
        "c1 was lost after 3.00 s (by the server, code 1006); in mid-turn: task; also at home there: neighbour"
    )
    (other,) = found("lost connection", {**ENDED, "cut": [f"t{number}" for number in range(8)]})
    assert "in mid-turn: t0, t1, t2, t3, t4 and 3 more" in other.text
    assert found("lost connection", {**ENDED, "lost": False, "why": "rotated"}) == []


def test_silence_in_the_middle_of_a_response() -> None:
    usual = [
        line for number in range(1, 5) for line in turn_lines(f"t{number}", 1, 0.0, lane=f"c1/lane-0{number}")
    ]
    (one,) = found("silence", *usual, *turn_lines("quiet", 1, 0.0, lane="c2/lane-01", seconds=5.0))
    assert one.text.startswith("quiet: 4.50 s without an event in the middle of a response on c2/lane-01")


@pytest.mark.parametrize(
    ("waits", "kind", "said"),
    [
        ({"admission": 3.5}, "admission wait", "waited 3.50 s for its slot"),
        ({"waited": 2.25}, "lane wait", "waited 2.25 s for a lane"),
    ],
)
def test_long_waits(waits: dict[str, float], kind: str, said: str) -> None:
    waited, admission = waits.get("waited", 0.0), waits.get("admission", 0.0)
    (one,) = found(kind, *turn_lines("task", 1, 10.0, waited=waited, admission=admission))
    assert said in one.text
    assert one.at == 10.0 - sum(waits.values())


def test_retries_and_failures() -> None:
    retry = {"at": 0.6, "what": "retry", "conv": "task", "reason": "stale socket", "error": "x"}
    failed = {"at": 0.9, "what": "failed", "conv": "task", "error": "it is no use"}
    start = turn_lines("task", 1, 0.0, ended=False)
    (one,) = found("retry", *start, retry, {**retry, "at": 0.7}, failed)
    assert one.text == "turn 1 of task took 2 more tries: stale socket"
    (one,) = found("failed turn", *start, failed)
    assert one.text == "turn 1 of task failed: it is no use"


def test_dials_strays_moves_and_what_has_no_end() -> None:
    dial = {"at": 1.0, "what": "dial_failed", "conn": "c4", "seconds": 10.0, "error": "no answer"}
    assert found("failed dial", dial)[0].text == "the dial of c4 failed after 10.0 s: no answer"
    stray = {
        "at": 1.0,
        "what": "in",
        "lane": "c1/lane",
        "bytes": 3,
        "type": "response.created",
        "stray": True,
    }
    assert found("stray", stray, stray)[0].text == "2 events for nobody on c1: response.created"
    moved = {"at": 1.5, "what": "move", "conv": "task", "state": "made"}
    lines = [*turn_lines("task", 1, 0.0), moved, *turn_lines("task", 2, 2.0, lane="c2/lane-01")]
    assert found("moved", *lines)[0].text == "task was moved 1 time between turns (c1/lane-01 to c2/lane-01)"
    (one,) = found("unfinished", *turn_lines("task", 1, 0.0, ended=False))
    assert one.text == "task: what was sent on c1/lane-01 has no end in this trace"


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_percentiles(values: list[float], share: float) -> None:
    value = percentile(values, share)
    assert value in values
    assert sum(other <= value for other in values) >= share * len(values) - 1e-9


def test_the_worst_comes_first() -> None:
    lines = [
        line
        for number in range(1, 4)
        for line in turn_lines("task", number, number * 9.0, waited=float(number))
    ]
    assert [one.weight for one in found("lane wait", *lines)] == [3.0, 2.0, 1.0]

"""The way of a turn."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from scheduler.transport import PRIOR_TURNS, RunLengths, View, choose

COLD = View(growing=True, turns_left=1.0)  # a dial would be needed, for one turn


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "http:short"),
        ({"turns_left": 2.0}, "http:short"),
        ({"turns_left": 20.0}, None),
        ({"turns_left": 5.0, "dial": 60.0}, None),
        ({"turns_left": 2.0, "replay": 1.0}, None),  # the second turn would have to replay
        ({"turns_left": 1.0, "replay": 1.0}, "http:short"),  # a single one has nothing to replay
        ({"dial": 0.01}, None),
        ({"hot": True}, None),
        ({"idle": True}, None),
        ({"growing": False}, None),  # lanes are scarce: it waits like everybody
        ({"size": 1 << 25}, "http:oversize"),
        ({"size": 1 << 25, "hot": True}, "http:oversize"),
        ({"broken": True, "open": False, "turns_left": 20.0}, "http:fallback"),
        ({"broken": True, "open": True, "turns_left": 20.0}, None),
        ({"broken": True, "open": False, "idle": True}, None),
    ],
)
def test_auto(changes: dict[str, Any], expected: str | None) -> None:
    assert choose("auto", evolve(COLD, **changes)) == expected


def test_the_setting_decides() -> None:
    for view in (COLD, View(hot=True), View(size=1 << 30), View(broken=True, open=False)):
        assert choose("websocket", view) is None
        assert choose("http", view) == "http:setting"


def test_before_anything_is_known_a_socket_is_dialled() -> None:
    assert choose("auto", View(growing=True, turns_left=RunLengths().left(0))) is None


def test_short_runs_convince_and_long_ones_convince_again() -> None:
    lengths = RunLengths()
    assert lengths.left(0) == PRIOR_TURNS

    def over_http(done: int = 0) -> bool:
        return choose("auto", View(growing=True, turns_left=lengths.left(done))) is not None

    for _ in range(10):
        lengths.finished(1)
    assert not over_http()
    for _ in range(30):
        lengths.finished(1)
    assert over_http()
    assert not over_http(done=2)  # who has come so far is one of the long ones
    for _ in range(10):
        lengths.finished(20)
    assert not over_http()
    lengths.finished(0)  # a conversation without a turn says nothing
    assert lengths.left(500) == 500


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(0, 400))
def test_at_least_one_turn_is_left(runs: list[int], done: int) -> None:
    lengths = RunLengths()
    for turns in runs:
        lengths.finished(turns)
    assert 1 <= lengths.left(done) <= 400

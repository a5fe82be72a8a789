"""A recorded trace as a load, and played back by the emulator."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from pool.emulator import EmulatorSettings
from pool.emulator.playback import Answer, Place, Playback, Schedule
from pool.emulator.request import Request
from pool.emulator.script import Script
from pool.errors import SettingsError
from pool.settings import Lanes, PoolSettings
from scheduler.trace.load import Load, load_of
from scheduler.trace.playback import schedule_of
from scheduler.trace.reader import TraceUnreadable
from tests.trace.support import loops, record, turn_lines, write

SCRIPTS = [f"calls={number} parallel={1 + number % 3} output_tokens={20 + number}" for number in range(5)]


def recorded(path: Path, faults: str = "") -> Load:
    """Record tool loops of 1 to 5 turns."""
    server = EmulatorSettings(latency="typical", faults=faults)
    return load_of(record(path, loops(5, script=SCRIPTS.__getitem__), server=server))


def test_a_trace_as_a_load(tmp_path: Path) -> None:
    load = recorded(tmp_path / "t")
    assert [len(run.turns) for run in load.runs] == [1, 2, 3, 4, 5]
    assert load.arrivals == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.2], abs=0.01)
    assert all(run.complete for run in load.runs)
    assert (load.dials, load.connections_lost) == (1, 0)
    for run in load.runs:
        assert [turn.tool_seconds for turn in run.turns] == pytest.approx(
            [0.25] * (len(run.turns) - 1) + [0], abs=0.01
        )
        assert [turn.kind for turn in run.turns] == ["replay"] + ["delta"] * (len(run.turns) - 1)
        for turn in run.turns:
            assert turn.first_event == pytest.approx(0.35, abs=0.01)
            assert turn.seconds == pytest.approx(0.35 + 0.012 * turn.output_tokens, abs=0.02)
            assert turn.bytes_replay >= turn.bytes_sent > 0
            assert turn.wait < 0.02
    assert load.turns == tuple(turn for run in load.runs for turn in run.turns)


@pytest.mark.parametrize("lanes", [Lanes.multi(), Lanes.single()], ids=["multi", "single"])
def test_what_was_recorded_plays_again_with_its_timing(tmp_path: Path, lanes: Lanes) -> None:
    first = recorded(tmp_path / "a")
    schedule = schedule_of(str(tmp_path / "a"))
    # What the clients ask of the model does not count: it does what was recorded.
    path = record(
        tmp_path / "b",
        loops(5, script=lambda _: "calls=1 output_tokens=900"),
        server=EmulatorSettings(schedule=schedule, lanes=lanes),
        pool=PoolSettings(min_idle=0, max_connections=5),
    )
    second = load_of(path)
    assert [len(run.turns) for run in second.runs] == [len(run.turns) for run in first.runs]
    for mine, theirs in zip(second.turns, first.turns, strict=True):
        assert mine.first_event == pytest.approx(theirs.first_event, abs=0.005)
        assert mine.seconds == pytest.approx(theirs.seconds, abs=0.005)
        assert mine.output_tokens == theirs.output_tokens


def test_a_turn_that_is_sent_again_is_the_same_turn(tmp_path: Path) -> None:
    recorded(tmp_path / "a")
    server = EmulatorSettings(
        schedule=schedule_of(str(tmp_path / "a")),
        faults="drop,at=6,create=4; drop,at=6,create=9; forget,create=12",
    )
    load = load_of(record(tmp_path / "b", loops(5, script=lambda _: ""), server=server))
    assert [len(run.turns) for run in load.runs] == [1, 2, 3, 4, 5]
    assert sum(turn.kind == "replay" for turn in load.turns) > 5


def test_there_are_as_many_conversations_as_are_asked_for(tmp_path: Path) -> None:
    recorded(tmp_path / "a")
    server = EmulatorSettings(schedule=schedule_of(str(tmp_path / "a")))
    load = load_of(record(tmp_path / "b", loops(7, script=lambda _: ""), server=server))
    assert [len(run.turns) for run in load.runs] == [1, 2, 3, 4, 5, 1, 2]


def test_only_conversations_whose_beginning_is_there_are_played(tmp_path: Path) -> None:
    lines = [
        *turn_lines("late", 4, 0.0),
        *turn_lines("whole", 1, 1.0),
        *turn_lines("cut", 1, 2.0, ended=False),
    ]
    schedule = schedule_of(write(tmp_path / "t", *lines))
    ((answer,),) = schedule.conversations
    assert (answer.first, answer.offsets, answer.calls, answer.output_tokens) == (0.5, (0.0, 0.5), 0, 3)
    with pytest.raises(TraceUnreadable, match="no turn that completed"):
        schedule_of(write(tmp_path / "u", *turn_lines("late", 4, 0.0)))


def test_the_load_marks_what_it_saw_only_a_part_of(tmp_path: Path) -> None:
    run = {"at": 0.0, "what": "run", "conv": "whole", "tenant": "blue"}
    over = {"at": 9.0, "what": "run_over", "conv": "whole", "turns": 1, "seconds": 9.0}
    lines = [run, *turn_lines("whole", 1, 1.0), over, *turn_lines("late", 4, 2.0)]
    whole, late = load_of(write(tmp_path / "t", *lines, {**run, "conv": "unborn"})).runs
    assert (whole.name, whole.tenant, whole.complete, whole.start, whole.end) == (
        "whole",
        "blue",
        True,
        0.0,
        9.0,
    )
    assert (late.name, late.complete) == ("late", False)


def test_a_schedule_must_hold_something() -> None:
    with pytest.raises(SettingsError, match="at least one answer"):
        Schedule(())
    with pytest.raises(SettingsError, match="at least one answer"):
        Schedule(((),))


def test_when_each_event_is_due() -> None:
    answer = Answer(first=0.5, offsets=(0.0, 0.1, 0.4))
    assert [answer.at(number, last=False) for number in range(4)] == [0.0, 0.1, 0.1, 0.1]
    assert answer.at(1, last=True) == 0.4
    assert Answer(offsets=()).at(3, last=True) == 0.0
    assert answer.script(Script(calls=5)).calls == 0
    assert evolve(answer, calls=3).script(Script()).parallel == 3


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool.emulator.playback.REMEMBER", 2)
    play = Playback(Schedule(((Answer(), Answer()),)))
    for number in range(9):
        play.said(Place(0, 0), f"resp_{number}", [])
    asked = Request(raw={}, model="m", input=[], script=Script())
    assert play.place(evolve(asked, previous_response_id="resp_8")) == Place(0, 1)
    assert play.place(evolve(asked, previous_response_id="resp_0")) == Place(0, 0), (
        "forgotten: it begins anew"
    )
    assert play.answer(Place(0, 2)) is None

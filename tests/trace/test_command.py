"""`warmline trace`, as a user meets it: what it prints, into what, and what it says to mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pool.emulator import EmulatorSettings
from pool.wire.codec import from_json
from scheduler.cli import invoke
from scheduler.trace.view.listing import SORTS, listed
from scheduler.trace.view.words import cut, seconds, why
from tests.trace.support import loops, record, story, turn_lines, write


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    server = EmulatorSettings(latency="typical", faults="drop,at=5,create=9")
    scene = loops(5, script=lambda number: f"calls={number} parallel=2")
    return record(tmp_path_factory.mktemp("trace") / "fleet.trace", scene, server=server)


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert invoke(["trace", *args]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out, "no colour into a pipe"
    assert max(map(len, out.splitlines())) <= 80 or "--json" in args
    return out


def as_json(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    value: dict[str, Any] = from_json(shown(capsys, *args, "--json"))
    return value


def refused(capsys: pytest.CaptureFixture[str], *args: str, status: int = 2) -> str:
    assert invoke(["trace", *args]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, "one line"
    return said.err


def test_the_list(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, path).splitlines()
    assert "5 conversations, 15 turns" in lines[0]
    assert "1 lost" in lines[1]
    assert [line.split()[0] for line in lines[4:]] == [f"task-{number}" for number in range(5)]


def test_the_list_by_other_things(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    by_turns = shown(capsys, path, "--sort", "turns").splitlines()
    assert [line.split()[2] for line in by_turns[4:]] == ["5", "4", "3", "2", "1"]
    assert len(shown(capsys, path, "--slowest", "2").splitlines()) == 6
    every = as_json(capsys, path, "--slowest", "2")["conversations"]
    assert every[0]["slowest_turn"] >= every[1]["slowest_turn"]


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_holds_everybody(sort: str) -> None:
    told = story(*turn_lines("b", 1, 0.0), *turn_lines("a", 1, 3.0, seconds=2.0, lane="c2/lane"))
    assert {one.name for one in listed(told, sort=sort)} == {"a", "b"}


def test_a_timeline(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, path, "--conversation", "task-3")
    assert out.startswith("task-3, tenant default: 4 turns on c1/lane-0")
    for part in (
        "turn 1        replay (new, the first turn), 1 item",
        "calls look, look",
        "delta (hot), 2 items",
    ):
        assert part in out
    assert out.count("first         event after") >= 4


def test_a_timeline_across_a_lost_socket(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    hit = next(one["name"] for one in as_json(capsys, path)["conversations"] if one["retries"])
    out = shown(capsys, path, "-c", hit)
    assert "lost          c1 was lost" in out
    assert "retry         again: lost" in out
    assert "again" in out
    assert "c2/lane-" in out
    turns = as_json(capsys, path, "-c", hit)["turns"]
    assert [len(turn["tries"]) for turn in turns].count(2) == 1


def test_a_connection(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, path, "--connection", "c1")
    assert "opened        dialled in" in out
    assert "by the server" in out.splitlines()[-1] or "in mid-turn" in out
    assert as_json(capsys, path, "--connection", "c1")["connection"] == "c1"


def test_the_odd(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, path, "--odd")
    assert "lost connection (1)" in out
    assert "replay (" in out
    kinds = {one["kind"] for one in as_json(capsys, path, "--odd")["findings"]}
    assert {"lost connection", "retry", "replay"} <= kinds


def test_many_of_a_kind_are_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for number in range(1, 31) for line in turn_lines("task", number, number * 3.0, waited=1.5)]
    out = shown(capsys, write(tmp_path / "t", *lines), "--odd")
    assert "lane wait (30)" in out
    assert "... and 20 more (all: --json)" in out


def test_nothing_odd_and_nothing_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "t")
    assert shown(capsys, path, "--odd") == "Nothing odd in 0 turns.\n"
    assert "0 conversations, 0 turns (- deltas)" in shown(capsys, path)


def test_a_har_file(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.har"
    said = shown_without_width(capsys, path, "--har", str(out))
    assert f"{out}: 2 entries, " in said
    assert "contents were not recorded" in said
    assert from_json(out.read_bytes())["log"]["version"] == "1.2"


def shown_without_width(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert invoke(["trace", *args]) == 0
    return capsys.readouterr().out


def test_mistakes(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, path, "-c", "tusk-3")
    assert "no conversation 'tusk-3' in this trace; is it task-3 or " in said
    assert "in this trace; there are 5 (" in refused(capsys, path, "-c", "qqqqqq")
    assert "no connection 'c9' in this trace; is it c" in refused(capsys, path, "--connection", "c9")
    assert "exclude each other" in refused(capsys, path, "--odd", "-c", "task-1")
    assert "are for the list" in refused(capsys, path, "--odd", "--slowest", "3")
    assert "--slowest sorts by itself" in refused(capsys, path, "--sort", "name", "--slowest", "3")
    assert "another file than the trace" in refused(capsys, path, "--har", path)
    assert "No such file" in refused(capsys, str(tmp_path / "none"), status=1)
    assert "is a folder" in refused(capsys, str(tmp_path), status=1)
    assert "No such file" in refused(capsys, path, "--har", str(tmp_path / "none" / "x.har"), status=1)


def test_a_name_steers_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b]0;owned\x07task" + "x" * 60
    path = write(tmp_path / "t", *turn_lines(name, 1, 0.0))
    assert "owned" in shown(capsys, path)
    shown(capsys, path, "-c", name)
    failed = {"at": 2.0, "what": "failed", "conv": name, "error": "\x1b[2Jgone"}
    path = write(tmp_path / "t", *turn_lines(name, 1, 0.0, ended=False), failed)
    shown(capsys, path, "--odd")


def test_what_was_rotated_away_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = {"warmline_trace": 1, "id": "x", "started": 1.0, "contents": True, "part": 3}
    path = write(tmp_path / "t", *turn_lines("task", 7, 5.0), b"torn", header=header)
    out = shown(capsys, path)
    assert "The beginning was rotated away: raise --trace-limit" in out
    assert "1 line missing or unreadable." in out
    assert "contents recorded" in out


def test_words() -> None:
    assert [seconds(value) for value in (None, 0.0032, 0.25, 1.25, 42.0, 245.0)] == [
        "-",
        "3.2 ms",
        "250 ms",
        "1.25 s",
        "42.0 s",
        "4 min 05 s",
    ]
    assert cut("abcdef", 4) == "abc…"
    assert why("replay:of-the-future") == "of-the-future"

"""Reading what may have befallen a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from scheduler.trace.reader import TraceUnreadable, is_trace, open_reading
from scheduler.trace.tell import story_of
from tests.trace.support import HEADER, turn_lines, write


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t", *turn_lines("task", 1, 0.0))
    reading = open_reading(path)
    assert (reading.header, len(list(reading)), len(list(reading))) == (HEADER, 5, 5)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b'{"id": "task-1", "input": "hello"}\n', "is no trace; make one with --trace FILE"),
        (b"\x00\xff\x7fELF", "is no trace"),
        (b"[1, 2]\n", "is no trace"),
        (b'{"warmline_trace":1,"id":"a","sta', "ends in its first line"),
        (b'{"warmline_trace":1}\n', "damaged first line"),
        (
            b'{"warmline_trace":7,"software":"warmline 9.1"}\n',
            "format 7, written by warmline 9.1; .* up to 1: upgrade",
        ),
    ],
)
def test_what_is_no_trace(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(TraceUnreadable, match=said) as caught:
        open_reading(str(path))
    assert str(path) in str(caught.value)


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TraceUnreadable, match="is a folder"):
        open_reading(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        open_reading(str(tmp_path / "none"))
    assert not is_trace(str(tmp_path / "none"))


def test_torn_and_damaged_lines_are_counted_and_passed_over(tmp_path: Path) -> None:
    good = turn_lines("task", 1, 0.0)
    path = write(tmp_path / "t", *good[:3], b"{{{", {"what": "in"}, {"at": 0.1, "what": "out"}, *good[3:])
    with open(path, "ab") as file:
        file.write(b'{"at":9.0,"wha')
    told = story_of(path)
    assert told.unrecorded == 4
    assert [turn.seconds for turn in told.turns] == [1.0]


def test_what_it_does_not_know_is_passed_over(tmp_path: Path) -> None:
    told = story_of(write(tmp_path / "t", {"at": 1.0, "what": "of the future"}, *turn_lines("task", 1, 2.0)))
    assert (told.unrecorded, len(told.turns)) == (0, 1)


def test_the_part_before_is_read_first_when_it_is_the_same_traces(tmp_path: Path) -> None:
    first, second = turn_lines("task", 1, 0.0), turn_lines("task", 2, 5.0)
    write(tmp_path / "t.1", *first)
    path = write(tmp_path / "t", *second, header=evolve(HEADER, part=2).to_line())
    assert [turn.number for turn in story_of(path).turns] == [1, 2]
    write(tmp_path / "t.1", *first, header=evolve(HEADER, id="another").to_line())
    assert [turn.number for turn in story_of(path).turns] == [2]

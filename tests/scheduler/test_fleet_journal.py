"""The results file: whole lines, resumed after any accident, never lost by mistake."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from pool.wire.codec import from_json
from scheduler.errors import BudgetExceeded, OutputFileError
from scheduler.fleet.journal import Journal
from scheduler.fleet.results import RunError, TaskResult
from scheduler.turns import Placement, Usage


def result(id_: str, outcome: Any = "completed", **changes: Any) -> TaskResult:
    return attrs.evolve(TaskResult(id=id_, outcome=outcome, output=f"answer {id_}"), **changes)


def write(path: Path, *results: TaskResult, mode: Any = "new") -> None:
    journal = Journal.open(str(path), mode)
    for each in results:
        journal.append(each)
    journal.sync()
    journal.close()


def ids(path: Path) -> list[str]:
    return [from_json(line)["id"] for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_a_line_says_everything() -> None:
    placements = tuple(
        Placement(kind=kind, reason=reason, connection="c1", lane="lane-01")  # type: ignore[arg-type]
        for kind, reason in (("replay", "replay:new"), ("delta", "hot"))
    )
    line = result(
        "a",
        "failed",
        output=None,
        usage=Usage(input_tokens=3, total_tokens=3),
        turns=2,
        tools_executed=1,
        placements=placements,
        first_event=(0.1234567, 0.2),
        turn_seconds=(0.5, 0.25),
        seconds=1.23456789,
        error=RunError.of(BudgetExceeded("max_turns", 2, 2)),
    ).to_line()
    assert line.endswith(b"\n")
    value = from_json(line)
    assert value["placements"] == ["replay:new", "hot"]
    assert value["timings"] == {"first_event": [0.123457, 0.2], "turn": [0.5, 0.25]}
    assert value["seconds"] == 1.234568
    assert value["usage"]["input_tokens"] == 3
    assert value["error"] == {
        "type": "BudgetExceeded",
        "message": "max_turns: used 2 of 2, and the agent has not finished",
        "code": None,
    }
    assert "refusal" not in value


@attrs.frozen
class Verdict:
    score: int


def test_a_structured_output_is_json_and_anything_else_is_its_text() -> None:
    assert from_json(result("a", output=Verdict(3)).to_line())["output"] == {"score": 3}
    assert from_json(result("a", output=object(), text="plain").to_line())["output"] == "plain"
    assert from_json(result("a", refusal="no").to_line())["refusal"] == "no"


def test_an_error_without_words_or_with_a_code() -> None:
    assert RunError.of(ValueError()).message == "no message"
    error = ValueError("x")
    error.code = 7  # type: ignore[attr-defined]
    assert RunError.of(error).code == "7"


def test_results_are_appended(path: Path) -> None:
    write(path, result("a"), result("b"))
    assert ids(path) == ["a", "b"]


def test_what_is_there_is_not_touched(path: Path) -> None:
    write(path, result("a"))
    with pytest.raises(OutputFileError, match="already there; --resume goes on"):
        Journal.open(str(path))
    assert ids(path) == ["a"]


def test_an_empty_file_may_be_written_to(path: Path) -> None:
    path.touch()
    write(path, result("a"))
    assert ids(path) == ["a"]


def test_overwriting_begins_with_the_first_result(path: Path) -> None:
    write(path, result("a"), result("b"))
    write(path, mode="overwrite")
    assert ids(path) == ["a", "b"]
    write(path, result("c"), result("d"), mode="overwrite")
    assert ids(path) == ["c", "d"]


def test_a_file_of_ours_that_stayed_empty_is_removed(path: Path) -> None:
    write(path)
    assert not path.exists()


def test_resuming_skips_what_is_completed(path: Path) -> None:
    write(path, result("a"), result("b", "failed"), result("c", "cancelled"), result("d", "failed"))
    journal = Journal.open(str(path), "resume")
    assert journal.finished == {"a"}
    assert not journal.repaired
    journal.append(result("b"))
    journal.close()
    journal = Journal.open(str(path), "resume")
    assert journal.finished == {"a", "b"}  # the last line of an id holds
    journal.close()


def test_resuming_what_is_not_there_starts_it(path: Path) -> None:
    write(path, result("a"), mode="resume")
    assert ids(path) == ["a"]


@pytest.mark.parametrize("kept", range(1, 40))
def test_a_torn_last_line_is_cut_off_wherever_it_is_torn(path: Path, kept: int) -> None:
    write(path, result("a"))
    whole = path.read_bytes()
    path.write_bytes(whole + result("b").to_line()[:kept])
    journal = Journal.open(str(path), "resume")
    assert journal.repaired
    assert journal.finished == {"a"}
    journal.append(result("b"))
    journal.close()
    assert ids(path) == ["a", "b"]


def test_a_last_line_that_only_lacks_its_end_is_completed(path: Path) -> None:
    write(path, result("a"), result("b"))
    path.write_bytes(path.read_bytes()[:-1])
    journal = Journal.open(str(path), "resume")
    assert journal.repaired
    assert journal.finished == {"a", "b"}
    journal.close()
    assert path.read_bytes().endswith(b"}\n")


def test_blank_lines_do_no_harm(path: Path) -> None:
    write(path, result("a"))
    path.write_bytes(b"\n" + path.read_bytes() + b"\n")
    write(path, result("b"), mode="resume")
    journal = Journal.open(str(path), "resume")
    assert journal.finished == {"a", "b"}
    journal.close()


@pytest.mark.parametrize("line", [b'{"input": "x"}', b"oops", b"[1]", b'{"id": "a", "outcome": "fine"}'])
def test_a_file_of_something_else_is_left_alone(path: Path, line: bytes) -> None:
    path.write_bytes(line + b"\n")
    with pytest.raises(OutputFileError, match=r"line 1 is not a result .*Nothing was changed"):
        Journal.open(str(path), "resume")
    assert path.read_bytes() == line + b"\n"


def test_two_fleets_cannot_write_to_one_file(path: Path) -> None:
    journal = Journal.open(str(path))
    with pytest.raises(OutputFileError, match="another fleet is writing to it"):
        Journal.open(str(path), "resume")
    journal.close()


def test_a_file_system_without_locks_will_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    write(path, result("a"))
    assert ids(path) == ["a"]


def test_where_nothing_can_be_written(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputFileError, match=r"make the folder '.*/missing' first"):
        Journal.open(str(tmp_path / "missing" / "out.jsonl"))
    with pytest.raises(OutputFileError, match="Is a directory; name a file in it"):
        Journal.open(str(tmp_path))

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(OutputFileError, match="Permission denied; name a file you may write to"):
        Journal.open(str(path))


def test_a_file_that_cannot_be_read_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, result("a"))

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.ftruncate", refuse)
    path.write_bytes(path.read_bytes() + b"{")
    with pytest.raises(OutputFileError, match="cannot be written: Input/output error"):
        Journal.open(str(path), "resume")


def test_a_pipe_takes_results_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe, result("a"), mode="overwrite")
    assert from_json(os.read(reader, 65536))["id"] == "a"
    os.close(reader)


class Disk:
    """`os.write` on a disk with so much room; writes in part, as the real one does."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.write = os.write

    def __call__(self, fd: int, data: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.write(fd, data[: self.room])
        self.room -= taken
        return taken


def test_a_full_disk_leaves_whole_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(str(path))
    journal.append(result("a"))
    monkeypatch.setattr("os.write", Disk(20))
    with pytest.raises(
        OutputFileError, match="No space left on device; 1 results of this run are kept; make room"
    ):
        journal.append(result("b"))
    monkeypatch.undo()
    assert ids(path) == ["a"]
    journal.append(result("b"))
    journal.close()
    assert ids(path) == ["a", "b"]


def test_a_line_taken_in_two_parts_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.open(str(path))
    parts = iter([10, 5, 100_000])
    real = os.write
    monkeypatch.setattr("os.write", lambda fd, data: real(fd, data[: next(parts)]))
    journal.append(result("a"))
    journal.close()
    assert ids(path) == ["a"]


def test_a_pipe_that_broke_in_mid_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    journal = Journal.open(str(pipe))
    monkeypatch.setattr("os.write", Disk(20))
    with pytest.raises(OutputFileError, match=r"0 results of this run are kept"):
        journal.append(result("a"))
    journal.close()
    os.close(reader)


def test_syncing_where_it_cannot_be_done_and_where_it_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(str(path))
    journal.append(result("a"))
    for number, fails in ((errno.EINVAL, False), (errno.EIO, True)):

        def sync(_fd: int, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("os.fsync", sync)
        if fails:
            with pytest.raises(OutputFileError, match="Input/output error"):
                journal.sync()
        else:
            journal.sync()
    journal.close()

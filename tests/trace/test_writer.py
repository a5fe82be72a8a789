"""The thread that writes, and everything that may go wrong with a file."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import trio

from pool.errors import SettingsError
from pool.settings import Endpoint
from pool.tap import tap_for, watching
from scheduler.trace import open_trace
from scheduler.trace import writer as writing
from scheduler.trace.records import Header
from scheduler.trace.scribe import Fact, Scribe
from scheduler.trace.scrub import Scrubber
from scheduler.trace.settings import parse_size
from scheduler.trace.tell import story_of
from scheduler.trace.writer import Writer
from tests.support.world import World
from tests.trace.support import HEADER, lines_of, loops, record, turn_lines, write


def writer(path: Path, limit: int = 1_000_000) -> Writer:
    return Writer(str(path), limit, Scribe(Scrubber()), HEADER)


def fact(number: int) -> Fact:
    return Fact(float(number), "", "tick", {"number": number})


def test_every_note_becomes_a_line_in_order(tmp_path: Path) -> None:
    one = writer(tmp_path / "t")
    one.start(HEADER)
    for number in range(5_000):  # more than a batch
        one.put(fact(number))
    one.close()
    head, *lines = lines_of(str(tmp_path / "t"))
    assert head == HEADER.to_line()
    assert [line["number"] for line in lines] == list(range(5_000))


def test_what_was_never_begun_still_has_its_header(tmp_path: Path) -> None:
    writer(tmp_path / "t").close()
    assert lines_of(str(tmp_path / "t")) == [HEADER.to_line()]


def test_the_last_is_kept_when_there_is_too_much(tmp_path: Path) -> None:
    path = tmp_path / "t"
    one = writer(path, limit=100_000)
    one.start(HEADER)
    for number in range(20_000):
        one.put(fact(number))
    one.close()
    before, after = lines_of(f"{path}.1"), lines_of(str(path))
    assert after[0]["part"] == before[0]["part"] + 1 > 2
    assert before[0]["id"] == after[0]["id"]
    kept = [line["number"] for line in (*before[1:], *after[1:])]
    assert kept == list(range(20_000 - len(kept), 20_000)), "without a gap, to the end"
    assert path.stat().st_size + Path(f"{path}.1").stat().st_size <= 100_000 + 200
    assert "rotated away" not in story_of(str(path)).header.id


def test_too_much_at_once_is_dropped_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_NOTES", 10)
    one = writer(tmp_path / "t")
    for number in range(25):  # before there is a thread to take them
        one.put(fact(number))
    one.start(HEADER)
    one.close()
    *ticks, lost = lines_of(str(tmp_path / "t"))[1:]
    assert len(ticks) == 10
    assert (lost["what"], lost["count"]) == ("lost", 15)
    assert story_of(str(tmp_path / "t")).unrecorded == 15


def test_contents_are_bounded_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST_BYTES", 1_000)
    one = writer(tmp_path / "t")
    for number in range(5):
        one.put(fact(number), 400)
    one.start(HEADER)
    one.close()
    assert [line["what"] for line in lines_of(str(tmp_path / "t"))[1:]] == ["tick"] * 3 + ["lost"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_disk_that_is_full_already_is_told_at_once() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"), open_trace("/dev/full"):
        pass
    assert watching.get() is None


def test_a_disk_that_becomes_full_ends_the_trace_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ended: list[str] = []

    async def scene(w: World) -> None:
        await loops(2, script=lambda _: "calls=2")(w)
        ended.append("well")

    monkeypatch.setattr(Writer, "_write", full)
    with caplog.at_level(logging.WARNING, "warmline.trace"):
        path = record(tmp_path / "t", scene)
    (warning,) = caplog.messages
    assert warning == f"{path}: No space left on device; the trace ends here, all else goes on"
    assert ended == ["well"], "what is traced goes on"


def test_an_old_trace_is_replaced_with_both_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write(path, *turn_lines("old", 1, 0.0))
    write(Path(f"{path}.1"), *turn_lines("older", 1, 0.0))
    record(path, loops(1, script=lambda _: "calls=0"))
    assert list(story_of(str(path)).conversations) == ["task-0"]
    assert not Path(f"{path}.1").exists()


@pytest.mark.parametrize("name", ["t", "t.1"])
def test_nothing_but_a_trace_is_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("my only copy of the tasks\n")
    with pytest.raises(SettingsError, match="is there and is no trace"), open_trace(tmp_path / "t"):
        pass
    assert (tmp_path / name).read_text() == "my only copy of the tasks\n"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_trace(tmp_path / "none" / "t"):
        pass
    assert watching.get() is None


async def test_only_pools_of_the_block_are_watched(tmp_path: Path) -> None:
    point = Endpoint.emulator("http://server/v1")
    assert tap_for(point) is None
    with open_trace(tmp_path / "t"):
        first, second = tap_for(point), tap_for(point)
        assert first is not None
        assert second is not None
        second.note("dialled", conn="c1", seconds=0.5)
    assert tap_for(point) is None
    *_, line = lines_of(str(tmp_path / "t"))
    assert line["conn"] == "p2.c1"
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100MB", 100_000_000),
        ("64 MiB", 67_108_864),
        ("1.5gb", 1_500_000_000),
        ("250k", 250_000),
        ("100000", 100_000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1MB", "1TBB", "99999", "10kB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(SettingsError, match="trace limit"):
        parse_size(text)


def test_the_header_says_who_wrote_it(tmp_path: Path) -> None:
    head, *_ = lines_of(record(tmp_path / "t", loops(1, script=lambda _: "calls=0")))
    assert head["software"].startswith("warmline")
    assert Header(id="x", started=1.0, contents=True).to_line()["contents"] is True

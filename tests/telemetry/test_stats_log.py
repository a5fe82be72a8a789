"""The log of a process: an interval now and then and one at the end; full disks, wrong files, rotation."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from scheduler.scheduler import Scheduler
from scheduler.telemetry.errors import TelemetryError
from scheduler.telemetry.hlog import read_hlog
from scheduler.telemetry.hlog_format import header
from scheduler.telemetry.intervals import Follower
from scheduler.telemetry.log_file import KEPT, LogFile
from scheduler.telemetry.stats_log import StatsLog, open_stats_log
from tests.support.world import asking, take, world

SIZE = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "x.hlog")


async def test_every_turn_is_in_one_interval(autojump_clock: trio.testing.MockClock, path: str) -> None:
    sources: dict[str, Scheduler] = {}
    said: list[str] = []
    async with (
        open_stats_log(path, lambda: sources, interval=10, size_limit=SIZE, say=said.append),
        world() as w,
    ):
        await trio.sleep(25)  # an interval without anybody is none
        sources[""] = w.scheduler
        for _ in range(4):
            await take(w.scheduler.conversation(), "Hello", asking("calls=0"))
            await trio.sleep(9)
        expected = w.scheduler.stats()
    recording = read_hlog(path)
    assert said == []
    # How many an interval has, chance decides: the clock jumps on while the thread writes the one before.
    assert sum(interval.stats.turns for interval in recording.intervals) == 4
    assert recording.total.counters().models == expected.counters().models
    spans = [(interval.start, interval.start + interval.seconds) for interval in recording.intervals]
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start == pytest.approx(end, abs=0.002)
    assert recording.intervals[0].stats.pool.seconds == pytest.approx(
        recording.intervals[0].seconds, abs=0.01
    )
    assert recording.intervals[0].endpoint == "emulator"


async def test_who_is_gone_tells_its_last_interval(autojump_clock: trio.testing.MockClock) -> None:
    async with world() as w:
        sources: dict[str, Scheduler] = {"a": w.scheduler}
        follower = Follower(lambda: sources, trio.current_time(), 1000.0)
        await take(w.scheduler.conversation(), "Hello", asking("calls=0"))
        (first,), written = follower.take(trio.current_time())
        assert (first.source, first.stats.turns) == ("a", 1)
        (again,), written = follower.take(trio.current_time() + 1)
        assert again.stats.turns == 1  # the first was not written
        written()
        await take(w.scheduler.conversation(), "Hello", asking("calls=0"))
        sources.clear()
        (last,), written = follower.take(trio.current_time() + 2)
        assert (last.source, last.stats.turns) == ("a", 1)
        written()
        assert follower.take(trio.current_time() + 3)[0] == []


class Full(LogFile):
    """A disk that is full now and then."""

    full = True

    def write(self, text: str) -> None:
        """Write if there is room."""
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(text)


async def test_a_full_disk_costs_neither_the_run_nor_a_number(
    autojump_clock: trio.testing.MockClock, path: str
) -> None:
    said: list[str] = []
    async with world() as w:
        sources: Mapping[str, Scheduler] = {"": w.scheduler}
        file = Full(path, SIZE, partial(header, 1000.0))
        log = StatsLog(file, Follower(lambda: sources, trio.current_time(), 1000.0), said.append)
        for _ in range(3):
            await take(w.scheduler.conversation(), "Hello", asking("calls=0"))
            await log.write()
        assert said == [
            f"--stats {path}: No space left on device; the statistics are kept until it can be written"
        ]
        file.full = False
        await log.write()
        assert said[1:] == [f"--stats {path}: written again, nothing is missing"]
        file.close()
        assert [interval.stats.turns for interval in read_hlog(path).intervals] == [3]
        file.full = True
        await log.finish()
        assert said[-1] == f"--stats {path}: the last statistics are lost"


def test_half_an_interval_is_taken_back(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LogFile(path, SIZE, lambda: "#[Warmline log, values in microseconds, x]\n")
    file.write("one\n")
    before = Path(path).read_text()
    real, left = os.write, [3]

    def write(fd: int, data: memoryview) -> int:
        if not left:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[: left.pop()])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="full"):
        file.write("two\n")
    assert Path(path).read_text() == before
    monkeypatch.undo()
    file.write("three\n")
    file.close()
    assert Path(path).read_text() == before + "three\n"


def test_a_log_goes_on_where_another_process_was_ended(path: str) -> None:
    begun = header(1000.0)
    Path(path).write_text(begun + "Tag=x,torn")
    file = LogFile(path, SIZE, partial(header, 2000.0))
    file.write("")
    file.close()
    assert Path(path).read_text() == begun + header(2000.0)


def test_a_file_of_another_kind_is_left_alone(path: str) -> None:
    Path(path).write_text('{"id": 1}\n')
    with pytest.raises(TelemetryError, match="is there and is no log of warmline; name another file"):
        LogFile(path, SIZE, str).open()
    assert Path(path).read_text() == '{"id": 1}\n'


def test_two_processes_do_not_share_a_log(path: str) -> None:
    one = LogFile(path, SIZE, str)
    one.open()
    with pytest.raises(TelemetryError, match="another process is writing it"):
        LogFile(path, SIZE, str).open()
    one.close()
    two = LogFile(path, SIZE, str)
    two.open()
    two.close()


@pytest.mark.parametrize(
    ("name", "why"), [("", "Is a directory"), ("no/x.hlog", "No such file or directory")]
)
def test_a_file_that_cannot_be_written(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(TelemetryError, match=f"--stats .*: {why}; name a file that can be written"):
        LogFile(str(tmp_path / name), SIZE, str).open()


def test_a_log_is_rotated_by_size(path: str) -> None:
    begun = header(1000.0)
    file = LogFile(path, len(begun) + 10, lambda: begun)
    for number in range(KEPT + 3):
        file.write(f"{number} {'x' * 20}\n")
    file.close()
    assert Path(path).read_text() == f"{begun}{KEPT + 2} {'x' * 20}\n"
    for age in range(1, KEPT + 1):
        assert Path(f"{path}.{age}").read_text() == f"{begun}{KEPT + 2 - age} {'x' * 20}\n"
    assert not Path(f"{path}.{KEPT + 1}").exists()


def test_a_device_is_no_file_to_take_back_from() -> None:
    file = LogFile("/dev/full", SIZE, str)
    file.open()
    with pytest.raises(OSError, match="No space left"):
        file.write("text\n")
    file.close()

"""Signals that reach `warmline run` in the middle of things, and what it does beside running."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from pool.wire.codec import from_json
from scheduler import cli
from scheduler.commands import display, drive
from scheduler.fleet.journal import Journal
from tests.support.emulated import emulated

MINE = "from scheduler import Agent\nagent = Agent(model='m')\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with emulated(latency="base=0.1") as url:
        yield url


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "tasks.jsonl").write_text("".join(f'"task {number}"\n' for number in range(9)))


def run(*args: str) -> int:
    return cli.invoke(["run", "tasks.jsonl", "--agent", "mine.py:agent", *args])


def press_after_a_result(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    left = list(numbers)
    real = Journal.append

    def append(self: Journal, result: Any) -> None:
        real(self, result)
        if left:
            os.kill(os.getpid(), left.pop(0))

    monkeypatch.setattr(Journal, "append", append)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_once(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    press_after_a_result(monkeypatch, number)
    assert run("--url", url, "--concurrency", "3", "--json") == status
    said = capsys.readouterr()
    report = from_json(said.out)
    assert report["interrupted"]
    assert report["runs"]["completed"] + report["runs"]["not_started"] == 9
    assert 1 <= report["runs"]["completed"] < 9
    assert "may finish within 10 s; Ctrl-C again cancels them now" in said.err


def test_when_all_are_completed_all_the_same_it_is_no_failure(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    press_after_a_result(monkeypatch, signal.SIGINT)
    assert run("--url", url, "--concurrency", "9", "--connections", "9") == 0


def test_before_there_is_a_fleet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def slow_to_start(settings: object) -> AsyncIterator[str]:
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep(60)
        yield ""

    monkeypatch.setattr(drive, "embedded_emulator", slow_to_start)
    assert run("--endpoint", "emulator") == 130
    said = capsys.readouterr()
    assert (said.out, said.err.strip()) == ("", "warmline: interrupted")
    assert not Path("tasks.results.jsonl").exists()


def test_progress_is_shown_and_results_are_made_safe(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = 0
    real = Journal.sync

    def sync(self: Journal) -> None:
        nonlocal synced
        synced += 1
        real(self)

    monkeypatch.setattr(Journal, "sync", sync)
    monkeypatch.setattr(drive, "SYNC_INTERVAL", 0.02)
    monkeypatch.setattr(display.Lines, "interval", 0.02)
    assert run("--url", url, "--concurrency", "3") == 0
    said = capsys.readouterr().err
    assert "warmline: 0/9 runs, 3 running" in said
    assert "6/9 runs" in said
    assert 2 <= synced <= 12  # at the end, and before only when there was something new


def test_quiet_shows_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--url", url, "--quiet") == 0
    assert capsys.readouterr().err == ""

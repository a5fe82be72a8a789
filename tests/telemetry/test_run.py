"""`warmline run` with its outlets, in this process: what is written, served and said."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pool.wire.codec import from_json
from scheduler import cli
from scheduler.stats import SchedulerStats
from scheduler.telemetry.hlog import read_hlog
from tests.support.emulated import emulated

AGENT = """
import os, urllib.request
from scheduler import Agent, tool

@tool
def look(where: str) -> str:
    "Look."
    if url := os.environ.get("METRICS"):
        return urllib.request.urlopen(url, timeout=60).read().decode()
    return f"seen {where}"

agent = Agent(model="gpt-test", tools=[look])
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with emulated() as url:
        yield url


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(AGENT)
    (tmp_path / "tasks.jsonl").write_text('"one"\n"two"\n')
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], url: str) -> Any:
    def call(*args: str) -> tuple[int, str, str]:
        path = list(sys.path)
        status = cli.invoke(["run", "tasks.jsonl", "--agent", "mine.py:agent", "--url", url, "-q", *args])
        sys.path[:] = path
        sys.modules.pop("warmline_agent_mine", None)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def test_the_log_and_the_summary_say_the_same(run: Any) -> None:
    status, out, err = run("--stats", "x.hlog", "--json")
    assert (status, err) == (0, "")
    recording = read_hlog("x.hlog")
    said = SchedulerStats.from_json(from_json(out)["stats"])
    assert recording.total.models == said.models
    assert recording.total.turns == 6
    assert (recording.total.pool.lost, recording.total.pool.open) == (0, 0)
    run("--stats", "x.hlog", "--overwrite")
    assert read_hlog("x.hlog").total.turns == 12  # appended


def test_a_tool_can_read_the_metrics_of_its_own_process(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("METRICS", f"http://127.0.0.1:{port}/metrics")
    status, _, err = run("--metrics", str(port), "--json")
    assert status == 0
    assert f"metrics: http://127.0.0.1:{port}/metrics" in err
    results = [from_json(line) for line in Path("tasks.results.jsonl").read_bytes().splitlines()]
    assert [(one["tools_executed"] > 0, one["tools_failed"]) for one in results] == [(True, 0)] * 2


def test_what_cannot_be_had_is_said_before_anything_is_begun(run: Any, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        for options, why in [
            (
                ("--metrics", str(port)),
                f"cannot listen on 127.0.0.1:{port}: Address already in use; name another port",
            ),
            (("--dashboard", str(port)), f"cannot listen on 127.0.0.1:{port}"),
            (
                ("--stats", "no/x.hlog"),
                "--stats no/x.hlog: No such file or directory; name a file that can be written",
            ),
            (("--stats", "tasks.jsonl"), "--stats tasks.jsonl: it is there and is no log of warmline"),
        ]:
            status, out, err = run(*options)
            assert (status, out) == (2, "")
            *warnings, error = err.splitlines()
            assert error.startswith("warmline: error: ")
            assert why in error
            assert all("can be read by other users" in line for line in warnings)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.py", "tasks.jsonl"]


def test_a_full_disk_is_said_and_costs_no_run(run: Any) -> None:
    status, out, err = run("--stats", "/dev/full")
    assert status == 0
    assert "2 completed" in out
    assert err.splitlines() == [
        "warmline: --stats /dev/full: No space left on device; the statistics are kept until it can be written",
        "warmline: --stats /dev/full: the last statistics are lost",
    ]

"""What is the SQLite engine's own: wrong files, a full disk, reboots, several processes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio

from scheduler.worker.clock import MachineClock
from scheduler.worker.engines import open_queue
from scheduler.worker.errors import QueueError, QueueRefused, QueueUnavailable
from scheduler.worker.job import Job
from scheduler.worker.queue import Counts, Filter, QueueSettings, WorkerInfo
from scheduler.worker.sqlite import open_engine
from scheduler.worker.sqlite_order import _OF_ALL, _OF_MINE
from scheduler.worker.sqlite_schema import VERSION

ANN = WorkerInfo(id="ann")


async def error_of(url: str) -> str:
    with pytest.raises(QueueError) as caught:
        async with open_queue(url):
            pass
    assert isinstance(caught.value, QueueRefused)
    return str(caught.value)


async def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_queue("sqlite:///jobs%20here.db") as queue:
        assert queue.name == "sqlite:///jobs here.db"
    assert (tmp_path / "jobs here.db").exists()
    async with open_queue(f"sqlite:///{tmp_path}/absolute.db"):
        assert (tmp_path / "absolute.db").exists()
    assert "names no file; write sqlite:///jobs.db" in await error_of("sqlite://jobs.db")
    assert "names no file" in await error_of("sqlite:///")
    assert "unknown parameter 'mode'" in await error_of("sqlite:///jobs.db?mode=ro")
    assert "no engine for this scheme; there are sqlite://" in await error_of("mysql://root:secret@host/db")
    assert "secret" not in await error_of("mysql://root:secret@host/db")
    assert "write sqlite:///jobs.db" in await error_of("jobs.db")


async def test_files_that_are_no_queue(tmp_path: Path) -> None:
    assert "no such folder" in await error_of(f"sqlite:///{tmp_path}/none/jobs.db")
    text = tmp_path / "text"
    text.write_text("this is no database, but a text that is long enough to be one\n" * 50)
    assert "no SQLite database" in await error_of(f"sqlite:///{text}")
    assert text.read_text().startswith("this is no")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    assert "of another program" in await error_of(f"sqlite:///{tmp_path}/other.db")
    assert "cannot be opened" in await error_of(f"sqlite:///{tmp_path}")


async def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    async with open_queue(url) as queue:
        await queue.put([Job(id="one", input="x")])
    file = sqlite3.connect(tmp_path / "jobs.db")
    file.execute(f"PRAGMA user_version = {VERSION + 1}")
    file.close()
    assert f"schema {VERSION + 1}, this warmline knows {VERSION}" in await error_of(url)


async def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    async with open_engine(f"sqlite:///{tmp_path}/jobs.db", QueueSettings()) as queue:
        await queue.put([Job(id="one", input="x")])
        (claim,) = await queue.take(ANN, limit=1)
        await queue.append(claim, 0, b"kept")
        connection = queue._store.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(QueueUnavailable, match="the disk is full"):
            await queue.append(claim, 1, b"x" * 100_000)
        with pytest.raises(QueueUnavailable, match="the disk is full"):
            await queue.finish(claim, b"x" * 100_000)
        connection.execute("PRAGMA max_page_count = 1000000")
        await queue.append(claim, 1, b"room again")
        await queue.finish(claim, b"x" * 100_000)
        assert [step.body for step in await queue.steps("one")] == [b"kept", b"room again"]
        assert len((await queue.get("one")).result or b"") == 100_000


async def test_a_lock_that_is_kept_is_waited_for_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.worker.sqlite.BUSY_TIMEOUT", 0.05)
    async with open_engine(f"sqlite:///{tmp_path}/jobs.db", QueueSettings()) as queue:
        other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueUnavailable, match="kept it locked"):
            await queue.put([Job(id="one", input="x")])
        assert await queue.counts() == Counts()  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        await queue.put([Job(id="one", input="x")])


async def test_after_a_reboot_every_lease_has_ended(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    before = MachineClock(steady=lambda: 1_000_000.0, boot="first")
    async with open_engine(url, QueueSettings(), clock=before) as queue:
        await queue.put([Job(id="one", input="x")])
        await queue.take(ANN, limit=1)
    after = MachineClock(steady=lambda: 5.0, boot="second")
    async with open_engine(url, QueueSettings(), clock=after) as queue:
        assert await queue.workers() == []
        (claim,) = await queue.take(WorkerInfo(id="bob"), limit=1)
        assert claim.strikes == 1


async def test_a_wall_clock_that_jumps_ends_no_lease(tmp_path: Path) -> None:
    wall = [1e9]
    clock = MachineClock(wall=lambda: wall[0], steady=lambda: 0.0, boot="first")
    async with open_engine(f"sqlite:///{tmp_path}/jobs.db", QueueSettings(), clock=clock) as queue:
        await queue.put([Job(id="one", input="x")])
        (claim,) = await queue.take(ANN, limit=1)
        for wall[0] in (1e9 + 86_400, 1e9 - 86_400):
            assert await queue.beat(ANN, [claim]) == []
            assert await queue.take(WorkerInfo(id="bob"), limit=1) == []


async def test_a_long_queue_is_not_sorted_for_each_take(tmp_path: Path) -> None:
    async with open_engine(f"sqlite:///{tmp_path}/jobs.db", QueueSettings()) as queue:
        await queue.put([Job(id=str(number), input="x") for number in range(50)])
        values = {"me": "ann", "agents": "[]", "now": 0.0, "steady": 0.0, "head_start": 0.0}

        def plan(query: str) -> str:
            rows = queue._store.connection.execute(f"EXPLAIN QUERY PLAN {query}", values)
            return " ".join(row["detail"] for row in rows)

        assert "TEMP B-TREE FOR ORDER BY" not in plan(_OF_ALL)
        assert "jobs_ready" in plan(_OF_ALL)
        # A worker's own conversations are few: sorting what is queued of them costs nothing.
        assert "held (holder=?) SEARCH j USING INDEX jobs_talking (conversation=? AND state=?)" in plan(
            _OF_MINE
        )


async def test_many_tasks_share_one_connection(tmp_path: Path) -> None:
    async with open_queue(f"sqlite:///{tmp_path}/jobs.db") as queue, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(queue.put, [Job(id=str(number), input="x")])
            nursery.start_soon(queue.counts)
    async with open_queue(f"sqlite:///{tmp_path}/jobs.db") as queue:
        assert len(await queue.find(Filter(), limit=99)) == 50

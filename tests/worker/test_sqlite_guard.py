"""A tool that reads the queue's own files takes SQLite's locks away; ours stay."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import scheduler.worker.sqlite_guard as sqlite_guard
from scheduler.worker.engines import open_queue
from scheduler.worker.errors import QueueUnavailable
from scheduler.worker.job import Job
from scheduler.worker.queue import Filter
from scheduler.worker.sqlite_guard import Guard
from tests.cli.test_processes import ROOT

WRITER = """
import sys, threading
import trio
from pathlib import Path
from scheduler.worker.engines import open_queue
from scheduler.worker.job import Job
from scheduler.worker.queue import WorkerInfo

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
over = False

def read():
    while not over:
        for end in ("", "-wal", "-shm"):
            try:
                with open(path + end, "rb") as file:
                    file.read(100)
            except FileNotFoundError:
                pass

async def write():
    async with open_queue(f"sqlite:///{path}") as queue:
        me = WorkerInfo(id=name, agents=(name,))
        for number in range(count):
            await queue.put([Job(id=f"{name}-{number}", input="x", agent=name)])
            (claim,) = await queue.take(me, limit=1)
            for index in range(3):
                await queue.append(claim, index, bytes(3000))

reader = threading.Thread(target=read)
reader.start()
try:
    trio.run(write)
finally:
    over = True
    reader.join()
"""


def read_files(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.read_bytes()


def test_one_alone_or_several_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_guard, "PATIENCE", 0.01)
    one, other = (Guard.open(str(tmp_path / "jobs.db"), "jobs") for _ in range(2))
    with one.locked(alone=False), other.locked(alone=False):
        pass
    for first, second in ((True, False), (False, True), (True, True)):
        with one.locked(alone=first):
            read_files(tmp_path / "jobs.db")
            with pytest.raises(QueueUnavailable, match="has kept it locked"), other.locked(alone=second):
                pass
    with other.locked(alone=True):
        pass
    one.close()
    other.close()


async def test_nobody_takes_itself_for_the_last(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    async with open_queue(f"sqlite:///{path}") as queue:
        await queue.put([Job(id="before", input="x")])
        read_files(path)
        other = (
            "from scheduler import enqueue; import sys; enqueue(sys.argv[1], [{'id': 'other', 'input': 'x'}])"
        )
        await trio.run_process([sys.executable, "-c", other, f"sqlite:///{path}"], cwd=ROOT)
        assert await trio.Path(f"{path}-wal").exists()
        await queue.put([Job(id="after", input="x")])
    assert not await trio.Path(f"{path}-wal").exists()  # this was the last
    async with open_queue(f"sqlite:///{path}") as queue:
        found = await queue.find(Filter(), limit=9)
    assert [record.job.id for record in found] == ["before", "other", "after"]


def test_processes_that_read_their_queue_do_not_damage_it(tmp_path: Path) -> None:
    path, count = tmp_path / "jobs.db", 40
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name, str(count)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("ann", "bob", "eve")
    ]
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM steps").fetchall() == [(3 * 3 * count,)]
    connection.close()

"""Workers as a person starts them: their own processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest
import trio

from pool.wire.codec import from_json
from scheduler.worker.client import enqueue, job_result
from scheduler.worker.engines import open_queue
from scheduler.worker.queue import Counts, WorkerInfo
from tests.cli.test_processes import ENVIRONMENT, ROOT, WARMLINE
from tests.cli.test_processes import wait_until as wait_so_long
from tests.support.emulated import emulated

LONG = 180.0
"""Seconds: far more than it takes. On a busy machine each of several processes needs a while to start."""
wait_until = partial(wait_so_long, seconds=LONG)


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with emulated(script="calls=2", latency="base=0.05") as url:
        yield url


@contextmanager
def working(queue: str, url: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    argv = [*WARMLINE, "work", "--queue", queue, "--url", url, "--agent", "bench/chaos_agent.py:agent", *more]
    with subprocess.Popen(argv, cwd=ROOT, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def counts(queue: str) -> Counts:
    async def ask() -> Counts:
        async with open_queue(queue) as opened:
            return await opened.counts()

    return trio.run(ask)


def workers(queue: str) -> list[WorkerInfo]:
    async def ask() -> list[WorkerInfo]:
        async with open_queue(queue) as opened:
            return await opened.workers()

    return trio.run(ask)


@pytest.fixture
def queue(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


def jobs(count: int, script: str = "calls=2") -> list[dict[str, object]]:
    return [
        {"id": f"j{number}", "input": f"do {number}", "metadata": {"emulator": script}}
        for number in range(count)
    ]


def test_two_under_one_work_until_nothing_is_left(queue: str, emulator: str) -> None:
    enqueue(queue, jobs(12))
    with working(queue, emulator, "--processes", "2", "--concurrency", "3", "--until-empty") as process:
        _, said = process.communicate(timeout=LONG)
    assert process.returncode == 0, said
    assert "worker 1: working on" in said
    assert "worker 2: working on" in said
    assert counts(queue) == Counts(done=12)
    assert job_result(queue, "j7")["turns"] == 3


def test_terminated_it_hands_back_and_a_killed_child_is_replaced(queue: str, emulator: str) -> None:
    enqueue(queue, jobs(4, "calls=400"))
    with working(queue, emulator, "--processes", "2", "--concurrency", "2", "--lease", "2") as process:
        wait_until(lambda: counts(queue).running == 4)
        first = workers(queue)
        assert len(first) == 2
        assert process.pid not in {worker.pid for worker in first}
        os.kill(first[0].pid, signal.SIGKILL)
        wait_until(
            lambda: {worker.id for worker in workers(queue)} - {worker.id for worker in first} != set()
        )
        wait_until(lambda: counts(queue).running >= 3)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LONG)
    assert process.returncode == 0, said
    assert "was ended by signal 9; started again" in said
    assert "Traceback" not in said
    left = counts(queue)
    assert (left.due + left.running, left.done, left.dead) == (4, 0, 0)
    assert left.running <= 2  # those of the killed, whose lease may last


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_children_do_not_outlive_a_killed_supervisor(queue: str, emulator: str) -> None:
    with working(queue, emulator, "--processes", "2") as process:
        wait_until(lambda: len(workers(queue)) == 2)
        pids = [worker.pid for worker in workers(queue)]
        process.kill()
        wait_until(lambda: not any(alive(pid) for pid in pids))


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_health(queue: str, emulator: str) -> None:
    enqueue(queue, jobs(1, "calls=400"))
    with working(queue, emulator, "--health", "0", "--concurrency", "1") as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "health on" in line)
        base = line.split()[-1].removesuffix("/healthz")

        def get(path: str) -> str:
            with urlopen(f"{base}{path}", timeout=10) as answer:
                return str(answer.read().decode())

        wait_until(lambda: counts(queue).running == 1)
        healthy = from_json(get("/healthz"))
        assert (healthy["ok"], healthy["wrong"], healthy["running"]) == (True, [], 1)
        assert from_json(get("/queue"))["backlog"] == 1
        assert "warmline_queue_running_jobs 1\n" in get("/metrics")


def test_a_wrong_key_is_one_line(queue: str, tmp_path: Path) -> None:
    with working(queue, "http://127.0.0.1:9/v1") as process:
        _, said = process.communicate(timeout=LONG)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("warmline: error: ")

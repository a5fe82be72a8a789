"""What a queue costs and what affinity brings: `python -m bench.worker --help`.

Overhead: the same runs, as a fleet and as jobs of one worker process with a queue between, by turns on one emulator
that answers at once. What a job costs more is the queue: enqueuing, leases, and a checkpoint for each turn and tool.
Queue: how many operations of each kind one process gets through, alone.
Affinity: conversations of several jobs at several workers. The share of follow-ups whose first turn was a delta on a
hot lane, with the head start that the worker with the lane has, and without.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trio
from attrs import frozen

from bench.chaos_agent import agent
from bench.machine import ROOT, describe
from bench.server import emulator
from pool.settings import Endpoint, PoolSettings
from pool.wire.codec import from_json
from scheduler.fleet.fleet import Fleet
from scheduler.scheduler import open_scheduler
from scheduler.worker.client import ended, put_all
from scheduler.worker.engines import open_queue
from scheduler.worker.job import Job
from scheduler.worker.queue import Queue, WorkerInfo
from scheduler.worker.settings import WorkerSettings
from scheduler.worker.worker import Worker

STEP = b"x" * 2000
"""A step of a usual size."""


@frozen(kw_only=True)
class Cost:
    """What so many turns cost one process, emulator and disk aside."""

    seconds: float
    cpu: float
    jobs: int
    turns: int

    def to_text(self) -> str:
        """Return it as a line."""
        each = 1e3 / self.jobs
        return (
            f"{self.jobs / self.seconds:7.1f} jobs/s {self.jobs * self.turns / self.seconds:8.0f} turns/s "
            f"{self.cpu * each:7.2f} ms CPU a job {self.cpu * each * 1e3 / self.turns:7.0f} µs a turn"
        )


def jobs_of(count: int, turns: int) -> list[Job]:
    """Return so many jobs of so many turns."""
    return [
        Job(id=f"job-{number}", input="work", metadata={"emulator": f"calls={turns - 1}"})
        for number in range(count)
    ]


@contextmanager
def measured(jobs: int, turns: int) -> Iterator[list[Cost]]:
    """Measure the block; the cost is in the list afterwards."""
    cost: list[Cost] = []
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    yield cost
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    cost.append(Cost(seconds=seconds, cpu=cpu, jobs=jobs, turns=turns))


async def as_fleet(url: str, jobs: Sequence[Job], turns: int, concurrency: int) -> Cost:
    """Run the jobs without a queue."""
    endpoint, pool = Endpoint.emulator(url), PoolSettings(max_connections=concurrency)
    tasks = [{"id": job.id, "input": job.input, "metadata": job.metadata} for job in jobs]
    async with open_scheduler(endpoint, pool_settings=pool) as scheduler:
        with measured(len(jobs), turns) as cost:
            done = await Fleet(agent, scheduler, concurrency=concurrency).run(tasks)
    assert done.completed == len(jobs)
    return cost[0]


async def as_jobs(url: str, queue_url: str, jobs: Sequence[Job], turns: int, concurrency: int) -> Cost:
    """Run the jobs through a queue."""
    endpoint, pool = Endpoint.emulator(url), PoolSettings(max_connections=concurrency)
    settings = WorkerSettings(concurrency=concurrency, until_empty=True)
    async with open_queue(queue_url) as queue, open_scheduler(endpoint, pool_settings=pool) as scheduler:
        with measured(len(jobs), turns) as cost:
            await put_all(queue, jobs)
            await Worker(queue, scheduler, {"chaos": agent}, settings).run()
        assert (await queue.counts()).done == len(jobs)
    return cost[0]


async def operations(queue_url: str, count: int) -> list[str]:
    """Measure each operation of a queue by itself, one after the other."""
    lines = []
    me = WorkerInfo(id="bench", agents=("chaos",))
    async with open_queue(queue_url) as queue:

        def note(what: str, started: float) -> None:
            each = (time.perf_counter() - started) / count
            lines.append(f"{what:<22} {each * 1e6:7.0f} µs {1 / each:8.0f}/s")

        started = time.perf_counter()
        await put_all(queue, jobs_of(count, 1))
        note("put, 500 at once", started)
        started = time.perf_counter()
        claims = [(await queue.take(me, limit=1))[0] for _ in range(count)]
        note("take, 1 at a time", started)
        started = time.perf_counter()
        for claim in claims:
            await queue.append(claim, 0, STEP)
        note(f"append, {len(STEP)} bytes", started)
        started = time.perf_counter()
        for claim in claims:
            await queue.finish(claim, STEP)
        note("finish", started)
    return lines


def hire(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a worker."""
    return subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def follow_ups(
    url: str,
    queue_url: str,
    *,
    conversations: int,
    rounds: int,
    workers: int,
    head_start: float,
    think: float,
) -> tuple[int, int]:
    """Return how many follow-ups began on a hot lane, and how many there were."""
    argv = [
        sys.executable,
        "-m",
        "scheduler",
        "work",
        "--queue",
        queue_url,
        "--url",
        url,
        "--lanes",
        "single",
    ]
    argv += ["--agent", "bench/chaos_agent.py:agent", "--concurrency", "4", "--connections", "64"]
    argv += ["--head-start", str(head_start)]
    hot = 0
    async with open_queue(queue_url) as queue:
        processes = [hire(argv) for _ in range(workers)]
        try:
            with trio.fail_after(60):
                await _all_there(queue, workers)
            async with trio.open_nursery() as nursery:

                async def converse(name: str) -> None:
                    nonlocal hot
                    for number in range(rounds):
                        metadata = {"emulator": "calls=1"}
                        job_id = f"{name}-{number}"
                        await queue.put([Job(id=job_id, input="go on", conversation=name, metadata=metadata)])
                        record = await ended(queue, job_id)
                        assert record.result is not None, record.cause
                        hot += number > 0 and from_json(record.result)["placements"][0] == "hot"
                        await trio.sleep(think)

                for number in range(conversations):
                    nursery.start_soon(converse, f"c{number}")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
    return hot, conversations * (rounds - 1)


async def _all_there(queue: Queue, count: int) -> None:
    while len(await queue.workers()) < count:  # noqa: ASYNC110 - other processes give no notice
        await trio.sleep(0.05)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--queue", help="URL with {} for a number, so that each part is empty [default: SQLite files]"
    )
    parser.add_argument(
        "--redis", action="store_true", help="in a Redis server of its own, which syncs each second"
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--conversations", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=3)
    given = parser.parse_args()
    os.environ.setdefault("WARMLINE_CHAOS_TOOL_SECONDS", "0")
    print(describe())
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="warmline-bench-"))
        url = stack.enter_context(emulator())
        place = given.queue or f"sqlite:///{folder}/{{}}.db"
        if given.redis:
            from tests.support.redis import redis_server  # what tests start it with needs pytest

            place = (
                stack.enter_context(
                    redis_server(Path(folder), "appendonly", "yes", "appendfsync", "everysec")
                ).url
                + "?queue={}"
            )
        print(
            f"overhead  {given.jobs} jobs of {given.turns} turns, {given.concurrency} at once, {given.repeat} times"
        )
        jobs = jobs_of(given.jobs, given.turns)
        for number in range(given.repeat):
            fleet = trio.run(as_fleet, url, jobs, given.turns, given.concurrency)
            queued = trio.run(as_jobs, url, place.format(number), jobs, given.turns, given.concurrency)
            print(f"  fleet   {fleet.to_text()}")
            print(f"  worker  {queued.to_text()}")
        print(f"queue     {given.operations} operations each, one at a time, one process")
        for line in trio.run(operations, place.format("operations"), given.operations):
            print(f"  {line}")
        print(
            f"affinity  {given.conversations} conversations of {given.rounds} jobs at {given.workers} workers"
        )
        for head_start in (0.0, 3.0):
            there = place.format(f"affinity-{head_start:g}")
            hot, total = trio.run(_follow_ups, url, there, given, head_start)
            print(f"  head start {head_start:g} s: {hot} of {total} follow-ups hot ({hot / total:.0%})")


async def _follow_ups(url: str, place: str, given: argparse.Namespace, head_start: float) -> tuple[int, int]:
    return await follow_ups(
        url,
        place,
        conversations=given.conversations,
        rounds=given.rounds,
        workers=given.workers,
        head_start=head_start,
        think=0.2,
    )


if __name__ == "__main__":
    main()

"""Worker processes that are killed again and again: `python -m bench.worker_chaos --help`.

Some workers do many jobs from one queue, of any engine, against one emulator. Every second one of those at work is
killed with SIGKILL and another started in its place, unless it is the last. At the end every job must have exactly
one result, every transcript must be what the model was shown (its last answer ends with the digest of that), and a
tool may have run twice for one call only if it was running, or its result was on the way to the queue, when its
worker was killed.

The time lost to a kill is how long a job of the dead worker's was nobody's: from the kill until it was taken back.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import trio
from attrs import define, field, frozen

from bench.machine import ROOT, describe
from pool.emulator import Emulator, EmulatorSettings, Latency, context_digest, serve_emulator
from pool.wire.codec import from_json
from pool.wire.events import Encoded
from scheduler.worker.client import put_all
from scheduler.worker.engines import open_queue
from scheduler.worker.job import Job
from scheduler.worker.patience import FIRST_DELAY, insist
from scheduler.worker.queue import Filter, Queue, QueueSettings, State
from scheduler.worker.seal import Seal
from scheduler.worker.steps import resumed

LOOK = 0.02
"""Seconds between two looks at the queue: how exact the times lost are."""
ON_THE_WAY = 0.75
"""Seconds that a tool's result may take from its end into the queue, on a machine this busy."""


@frozen(kw_only=True)
class Chaos:
    """What to do. Times in seconds. `attempts`: of each job; the innocent must not die of bad luck."""

    jobs: int = 200
    turns: int = 10
    workers: int = 4
    concurrency: int = 8
    kill_every: float = 1.0
    lease: float = 3.0
    latency: float = 0.02
    seed: int = 1
    patience: float = 300.0
    disturb_after: float | None = None  # share of the jobs done, after which `disturb` is called, once


@frozen(kw_only=True)
class Aftermath:
    """What came of it. `wrong` says everything that must not be; `lost` are the times lost, in seconds."""

    seconds: float
    kills: int
    lost: tuple[float, ...]
    results: int
    tools_run: int
    tools_repeated: int
    responses: int
    takes: int
    wrong: tuple[str, ...] = ()

    def to_text(self, chaos: Chaos) -> str:
        """Return the figures, a line each."""
        lost = sorted(self.lost) or [math.nan]
        turns, calls = chaos.jobs * chaos.turns, chaos.jobs * (chaos.turns - 1)
        rate, median = self.results / self.seconds, lost[len(lost) // 2]
        return "\n".join(
            (
                f"jobs      {self.results} of {chaos.jobs} have one result, {rate:.1f} a second",
                f"kills     {self.kills} in {self.seconds:.1f} s; {self.takes} takes",
                f"turns     {self.responses} paid for {turns} ({self.responses - turns} again)",
                f"tools     {self.tools_run} run for {calls} calls ({self.tools_repeated} again)",
                f"lost      a job to a kill: median {median:.2f} s, most {lost[-1]:.2f} s (lease {chaos.lease:g} s)",
                f"wrong     {'; '.join(self.wrong) or 'nothing'}",
            )
        )


@define(eq=False)
class Hell:
    """The chaos while it goes on."""

    chaos: Chaos
    url: str
    endpoint: str
    log: Path
    rng: random.Random
    workers: list[subprocess.Popen[bytes]] = field(factory=list, init=False)
    killed: dict[int, float] = field(factory=dict, init=False)  # process id -> when, on the wall clock
    lost: list[float] = field(factory=list, init=False)
    away: tuple[float, float] | None = field(default=None, init=False)  # when the queue was disturbed

    def hire(self) -> None:
        """Start a worker."""
        chaos = self.chaos
        argv = [sys.executable, "-m", "scheduler", "work", "--queue", self.url, "--url", self.endpoint]
        argv += ["--agent", "bench/chaos_agent.py:agent", "--concurrency", str(chaos.concurrency)]
        argv += ["--lease", str(chaos.lease), "--lanes", "single"]
        environment = {**os.environ, "WARMLINE_CHAOS_LOG": str(self.log)}
        self.workers.append(
            subprocess.Popen(
                argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )

    def kill(self, at_work: set[int]) -> None:
        """Kill one of those that are at work, by process id, and start another."""
        victim = self.rng.choice([worker for worker in self.workers if worker.pid in at_work])
        self.workers.remove(victim)
        victim.send_signal(signal.SIGKILL)
        self.killed[victim.pid] = time.time()
        victim.wait()
        self.hire()

    def end(self) -> None:
        """Leave no process behind."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(10)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


async def unleash(
    url: str, chaos: Chaos, folder: Path, *, disturb: Callable[[], Awaitable[None]] | None = None
) -> Aftermath:
    """Do the jobs on the queue at `url`, which is empty, with workers that are killed, and look at what came of it.

    `disturb` is what else shall happen, once: a restart of the queue's server, say.
    """
    settings = QueueSettings(lease=chaos.lease)
    rng = random.Random(chaos.seed)
    server = EmulatorSettings(latency=Latency(base=chaos.latency))
    jobs = [
        Job(id=f"job-{number:03}", input=f"task {number}", metadata={"emulator": f"calls={chaos.turns - 1}"})
        for number in range(chaos.jobs)
    ]
    log = folder / "tools.log"
    log.touch()
    async with open_queue(url, settings) as queue, serve_emulator(server) as running:
        await put_all(queue, jobs)
        hell = Hell(chaos, url, running.url, log, rng)
        try:
            for _ in range(chaos.workers):
                hell.hire()
            with trio.fail_after(chaos.patience):
                await _until(queue, lambda counts: counts.running > 0)
                began = trio.current_time()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_kill_on, hell, queue)
                    nursery.start_soon(_watch, hell, queue)
                    if disturb is not None:
                        after = (chaos.disturb_after or 0.5) * chaos.jobs
                        nursery.start_soon(_disturb, hell, queue, after, disturb)
                    await _until(queue, lambda counts: counts.done + counts.dead >= chaos.jobs)
                    nursery.cancel_scope.cancel()
                seconds = trio.current_time() - began
        finally:
            hell.end()
        return await _look_back(hell, queue, running.emulator, jobs, seconds)


async def _until(queue: Queue, true: Callable[..., bool]) -> None:
    while True:
        if true(await insist(queue.counts)):
            return
        await trio.sleep(LOOK)


async def _disturb(hell: Hell, queue: Queue, after: float, disturb: Callable[[], Awaitable[None]]) -> None:
    await _until(queue, lambda counts: counts.done >= after)
    began = time.time()
    await disturb()
    ended = time.time()
    # Those who were refused come back after a delay that doubles: at most as much later as it has lasted.
    hell.away = began, ended + (ended - began) + FIRST_DELAY


async def _kill_on(hell: Hell, queue: Queue) -> None:
    """Kill one a second; but the last that is at work is left alone, or a slow machine would never get anywhere."""
    while True:
        await trio.sleep(hell.chaos.kill_every)
        hired = {worker.pid for worker in hell.workers}
        at_work = {worker.pid for worker in await insist(queue.workers)} & hired
        if len(at_work) > 1:
            hell.kill(at_work)


async def _watch(hell: Hell, queue: Queue) -> None:
    """Measure how long the jobs of a dead worker stay with it."""
    pids: dict[str, int] = {}
    held: dict[tuple[str, str], float] = {}
    while True:
        for worker in await insist(queue.workers):
            pids[worker.id] = worker.pid
        records = await insist(lambda: queue.find(Filter(state=State.RUNNING), limit=1000))
        now = time.time()
        present = {(record.job.id, record.worker or "") for record in records}
        for (job_id, worker_id), since in list(held.items()):
            if (job_id, worker_id) not in present:
                hell.lost.append(now - since)
                del held[job_id, worker_id]
        for job_id, worker_id in present:
            when = hell.killed.get(pids.get(worker_id, -1))
            if when is not None:
                held.setdefault((job_id, worker_id), when)
        await trio.sleep(LOOK)


async def _look_back(
    hell: Hell, queue: Queue, emulator: Emulator, jobs: Sequence[Job], seconds: float
) -> Aftermath:
    chaos, wrong = hell.chaos, []
    results = takes = 0
    for job in jobs:
        record = await queue.get(job.id)
        takes += record.takes
        if record.state is not State.DONE or record.result is None:
            wrong.append(f"{job.id} is {record.state.value} ({record.cause})")
            continue
        results += 1
        result = from_json(record.result)
        if (result["turns"], result["tools_executed"]) != (chaos.turns, chaos.turns - 1):
            wrong.append(f"{job.id}: {result['turns']} turns, {result['tools_executed']} tools in its result")
        steps = [Seal().open(step.body, job.id, step.index) for step in await queue.steps(job.id)]
        if not transcript_is_right(job.id, steps):
            wrong.append(f"{job.id}: the transcript is not what the model was shown")
    run, repeated, amiss = look_at_tools(hell.log.read_text().splitlines(), hell.killed, hell.away)
    wrong += amiss
    return Aftermath(
        seconds=seconds,
        kills=len(hell.killed),
        lost=tuple(hell.lost),
        results=results,
        tools_run=run,
        tools_repeated=repeated,
        responses=emulator.stats.responses,
        takes=takes,
        wrong=tuple(wrong),
    )


def transcript_is_right(job_id: str, steps: Sequence[bytes]) -> bool:
    """Compare the transcript that the steps add up to with what the server says it was shown for the last answer."""
    state = resumed(job_id, (), steps, store=False)
    items = [from_json(item.text) for item in state.past.items if isinstance(item, Encoded)]
    turn, _ = state.story.turns[-1]
    shown = items[: len(items) - len(turn.output)]
    return turn.text.endswith(f"context:{context_digest(shown)}")


def look_at_tools(
    lines: Sequence[str], killed: Mapping[int, float], away: tuple[float, float] | None = None
) -> tuple[int, int, list[str]]:
    """Return how often tools ran, how often again, and every repetition that no kill explains.

    `away`: from when until when the queue could not be reached, and results had to wait.
    """
    begun: dict[str, list[int]] = defaultdict(list)
    ended: dict[tuple[str, int], float] = {}
    for line in lines:
        what, _job, call_id, process, moment = line.split()
        pid, at = int(process), float(moment)
        if what == "begin":
            begun[call_id].append(pid)
        else:
            ended[call_id, pid] = at
    amiss = []
    for call_id, runs in begun.items():
        for pid in runs[:-1]:
            if pid not in killed:
                amiss.append(f"{call_id} ran again, and its worker {pid} had not been killed")
                continue
            end, kill = ended.get((call_id, pid), math.inf), killed[pid]
            late = kill - end
            if away is not None and end < away[1] and kill > away[0]:
                late -= min(kill, away[1]) - max(end, away[0])
            if late > ON_THE_WAY:
                amiss.append(f"{call_id} ran again, though it had ended {late:.2f} s before the kill")
    run = sum(len(runs) for runs in begun.values())
    return run, run - len(begun), amiss


def main() -> None:
    """Unleash it, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queue", help="the URL of an empty queue [default: a SQLite file]")
    parser.add_argument(
        "--redis", action="store_true", help="in a Redis server of its own, restarted half-way"
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--kill-every", type=float, default=1.0, help="seconds [1]")
    parser.add_argument("--lease", type=float, default=3.0, help="seconds [3]")
    parser.add_argument("--latency", type=float, default=0.02, help="of the model, seconds a turn [0.02]")
    parser.add_argument("--seed", type=int, default=1)
    given = vars(parser.parse_args())
    url, redis, chaos = given.pop("queue"), given.pop("redis"), Chaos(**given)
    print(describe())
    with tempfile.TemporaryDirectory(prefix="warmline-chaos-") as folder:
        place = Path(folder)
        if redis:
            aftermath = _in_redis(chaos, place)
        else:
            aftermath = trio.run(unleash, url or f"sqlite:///{folder}/jobs.db", chaos, place)
    print(aftermath.to_text(chaos))
    sys.exit(bool(aftermath.wrong))


def _in_redis(chaos: Chaos, folder: Path) -> Aftermath:
    from tests.support.redis import redis_server  # what tests start it with needs pytest

    with redis_server(folder) as server:
        return trio.run(partial(unleash, server.url, chaos, folder, disturb=server.restart))


if __name__ == "__main__":
    main()

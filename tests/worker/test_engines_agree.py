"""The same operations in the same order on every engine: what they answer and what they keep must be the same."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from scheduler.worker.errors import QueueError
from scheduler.worker.job import Job
from scheduler.worker.queue import Cause, Claim, Filter, Queue, QueueSettings, WorkerInfo
from tests.worker.stages import STAGES, Stage

SETTINGS = QueueSettings(lease=10.0, head_start=2.0, retention=60.0, dead_retention=90.0)
WORKERS = [
    WorkerInfo(id="ann", agents=("x",)),
    WorkerInfo(id="bob", agents=("x", "y")),
    WorkerInfo(id="cid", agents=("y",)),
]
OOPS = Cause(type="Oops", message="it broke")
OPERATIONS = 120


async def story(stage: Stage, seed: int) -> list[object]:
    """Do what the seed says, and return all that was seen."""
    rng, seen, claims = random.Random(seed), [], [list[Claim]() for _ in WORKERS]

    async def note(ask: Callable[[], Awaitable[object]]) -> None:
        try:
            seen.append(await ask())
        except QueueError as error:
            seen.append(type(error).__name__)

    async with stage.open(SETTINGS) as queue:
        for number in range(OPERATIONS):
            who = rng.randrange(len(WORKERS))
            held, job_id = claims[who], f"j{rng.randrange(number + 1)}"
            claim = rng.choice(held) if held else None
            what = rng.choice(["put", "put", "take", "take", "pass", "beat", "append", "finish", "finish"])
            rare = (
                rng.choice(["fail", "release", "retry", "drop", "leave", "far"])
                if rng.random() < 0.2
                else what
            )
            wait, keep = rng.choice([None, None, 3.0]), rng.random() < 0.7
            match rare:
                case "put":
                    job = Job(
                        id=f"j{number}",
                        input="x",
                        agent=rng.choice(["", "x", "y"]),
                        tenant=rng.choice([None, "t", "u"]),
                        priority=rng.choice([0.0, 0.0, 1.5]),
                        attempts=2,
                        conversation=rng.choice([None, None, "c", "d"]),
                        not_before=None if wait is None else stage.now() + wait,
                    )
                    await note(lambda job=job: queue.put([job, job]))  # type: ignore[misc]
                case "take":
                    taken = await queue.take(
                        WORKERS[who], limit=rng.randint(1, 3), suspects=rng.randint(0, 1)
                    )
                    held += taken
                    seen.append([(c.job.id, c.strikes, c.steps, c.chapter, round(c.age, 6)) for c in taken])
                case "pass" | "far":
                    stage.advance(rng.choice([0.5, 1.0, 2.5]) if rare == "pass" else rng.choice([11.0, 61.0]))
                case "beat":
                    lost = await queue.beat(WORKERS[who], held)
                    seen.append([lost_one.job.id for lost_one in lost])
                case "retry":
                    await note(lambda job_id=job_id: queue.retry(job_id, steps=[b"said"]))  # type: ignore[misc]
                case "drop":
                    await queue.drop(job_id)
                case "leave":
                    await queue.leave(WORKERS[who].id)
                case _ if claim is not None:
                    await note(lambda rare=rare, claim=claim: record(queue, rare, claim, wait, keep))  # type: ignore[misc]  # noqa: B023
            seen.append(await queue.counts())
            seen.append([info.id for info in await queue.workers()])
        entries = await queue.find(Filter(), limit=1000)
        seen += [(entry, await queue.steps(entry.job.id)) for entry in entries]
    return seen


async def record(queue: Queue, what: str, claim: Claim, wait: float | None, keep: bool) -> object:
    """Let a worker record something of a job."""
    match what:
        case "append":
            before, own = await queue.history(claim)
            await queue.append(claim, len(own), b"step")
            return [(step.job_id, step.index) for step in (*before, *own)]
        case "finish":
            await queue.finish(claim, b"result", holds=keep)
        case "fail":
            return await queue.fail(claim, OOPS, retry_in=wait)
        case _:
            await queue.release([claim])
    return what


@pytest.mark.parametrize("seed", range(12))
async def test_engines_agree(request: pytest.FixtureRequest, seed: int) -> None:
    stories = {name: await story(make(request), seed) for name, make in STAGES.items()}
    expected = stories.pop("sqlite")
    for name, found in stories.items():
        for step, (one, other) in enumerate(zip(expected, found, strict=True)):
            assert other == one, f"{name} differs at {step}"

"""What a queue's scripts and reads answer in Redis, as the values of a queue; and those values as arguments. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import asdict

from pool.wire.codec import from_json, to_json
from scheduler.worker.job import Job
from scheduler.worker.queue import Cause, Claim, Record, State, Step, WorkerInfo

ROW = (
    *("agent", "tenant", "conversation", "body", "state", "enqueued_at", "due_at", "started_at", "ended_at"),
    *("takes", "strikes", "worker", "steps", "cause"),
)
"""Fields of a job, in the order in which `find` gives them."""


def record_of(values: dict[str, Any]) -> Record:
    """Return a record from the fields of its hash."""

    def moment(name: str) -> float | None:
        value = values.get(name)
        return None if value is None else float(value)

    cause, worker = values.get("cause"), values.get("worker")
    return Record(
        job=Job.from_json(values["body"]),
        state=state_of(values["state"]),
        enqueued_at=float(values["enqueued_at"]),
        due_at=float(values["due_at"]),
        started_at=moment("started_at"),
        ended_at=moment("ended_at"),
        takes=int(values["takes"]),
        strikes=int(values["strikes"]),
        worker=None if worker is None else worker.decode(),
        steps=int(values["steps"]),
        cause=None if cause is None else Cause(**from_json(cause)),
        result=values.get("result"),
    )


def state_of(value: bytes) -> State:
    """Return the state of this name."""
    return State(value.decode())


def steps_of(job_id: str, entries: Sequence[Any]) -> list[Step]:
    """Return steps from the entries of their stream, whose ids are 0-1, 0-2 and so on."""
    return [
        Step(job_id=job_id, index=event_id(place)[1] - 1, body=fields[1]) for place, fields in entries or ()
    ]


def event_id(text: bytes) -> tuple[int, int]:
    """Return the id of a stream's entry as numbers, which compare as the entries follow each other."""
    first, second = text.split(b"-")
    return int(first), int(second)


def info_of(worker: WorkerInfo) -> bytes:
    """Return what the queue keeps of a worker."""
    return to_json(asdict(worker))


def named(claims: Sequence[Claim]) -> list[Any]:
    """Return what names claims to a script: of each its job and its token."""
    return [value for claim in claims for value in (claim.job.id, repr(claim.token))]


def facts(info: bytes) -> dict[str, str]:
    """Return what INFO answers, by name."""
    lines = (line.partition(":") for line in info.decode().splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in lines}

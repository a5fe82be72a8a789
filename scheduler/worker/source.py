"""Jobs from a tasks file: the same lines as `warmline run` takes, and what only a queue needs beside. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from attrs import evolve

from pool.wire.codec import from_json, to_json
from scheduler.errors import TaskError
from scheduler.fleet.tasks import KEYS, Task, as_tasks, read_tasks
from scheduler.worker.errors import JobError
from scheduler.worker.job import Job

MORE = ("agent", "attempts", "conversation", "not_before")
JobLike = Job | Task | str | Mapping[str, Any]


def read_jobs(
    lines: Iterable[bytes], *, source: str, defaults: Mapping[str, Any] | None = None
) -> Iterator[Job]:
    """Yield the jobs of a tasks file. `defaults`: fields of jobs that say nothing about them.

    Raises:
        TaskError: a line is no job, or repeats an id.
    """
    beside: dict[int, Mapping[str, Any]] = {}

    def tasks() -> Iterator[bytes]:
        for number, line in enumerate(lines, 1):
            try:
                value = from_json(line)
            except ValueError:  # what reads the tasks says it better
                yield line
                continue
            rest, beside[number] = _split(value, source, number)
            yield line if rest is value else to_json(rest)

    for task in read_tasks(tasks(), source=source):
        yield _job(task, beside.pop(task.line, {}), defaults or {}, source, task.line)


def as_jobs(jobs: Iterable[JobLike], *, defaults: Mapping[str, Any] | None = None) -> Iterator[Job]:
    """Yield a job for each value that a program gives: a `Job`, or what a fleet takes, or a mapping as in a file.

    Raises:
        TaskError: a value is no job, or repeats an id.
    """
    if isinstance(jobs, str | bytes | Mapping | Job):
        raise TaskError("is one job; put it into a list", source="jobs")
    beside: dict[int, Mapping[str, Any]] = {}
    ready: dict[int, Job] = {}

    def tasks() -> Iterator[Task | str | Mapping[str, Any]]:
        for number, value in enumerate(jobs, 1):
            if isinstance(value, Job):
                ready[number] = value
                yield Task(id=value.id, input=value.input)
                continue
            rest, beside[number] = _split(value, "jobs", number)
            yield rest

    for number, task in enumerate(as_tasks(tasks()), 1):
        if number in ready:
            yield ready.pop(number)
        else:
            yield _job(task, beside.pop(number, {}), defaults or {}, "jobs", number)


def _split(value: Any, source: str, line: int) -> tuple[Any, Mapping[str, Any]]:
    """Part what a task has from what only a job has."""
    if not isinstance(value, Mapping):
        return value, {"named": isinstance(value, Task)}
    for key in value.keys() - {*KEYS, *MORE}:
        near = difflib.get_close_matches(str(key), (*KEYS, *MORE), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join((*KEYS, *MORE))
        raise TaskError(f"unknown key {key!r}{hint} (a job has: {known})", source=source, line=line)
    more = {key: value[key] for key in MORE if value.get(key) is not None}
    if "conversation" in more and value.get("id") is None:
        raise TaskError(
            "'id' is missing: a job of a conversation needs one, as the same may be said twice in it",
            source=source,
            line=line,
        )
    rest = {key: content for key, content in value.items() if key in KEYS}
    more["named"] = value.get("id") is not None
    return (value, more) if len(rest) == len(value) else (rest, more)


def _job(task: Task, more: Mapping[str, Any], defaults: Mapping[str, Any], source: str, line: int) -> Job:
    def wrong(problem: str) -> TaskError:
        return TaskError(problem, source=source, line=line)

    fields = {
        "id": task.id,
        "input": task.input,
        "metadata": task.metadata,
        **{name: value for name, value in defaults.items() if value is not None},
        **{
            name: value
            for name in ("tenant", "priority", "deadline")
            if (value := getattr(task, name)) is not None
        },
        **{name: value for name, value in more.items() if name != "named"},
    }
    if "not_before" in fields:
        fields["not_before"] = _moment(fields["not_before"], wrong)
    for name in ("agent", "conversation"):
        if not isinstance(fields.get(name, ""), str):
            raise wrong(f"{name!r} must be a text")
    try:
        job = Job(**fields)
    except JobError as error:
        raise wrong(f"{error.field!r} {error.problem}") from None
    # The same words for another agent are another job; an id that is made up here has to say so.
    own = more.get("named", True) or not job.agent
    return job if own else evolve(job, id=f"{job.id}-{job.agent}")


def _moment(value: Any, wrong: Callable[[str], TaskError]) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    problem = f"'not_before' must be seconds since 1970 or a time such as 2030-01-31T08:00:00Z, not {value!r}"
    if not isinstance(value, str):
        raise wrong(problem)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise wrong(problem) from None
    if moment.tzinfo is None:
        raise wrong(f"'not_before' = {value!r} names no time zone: add Z, or +01:00")
    return moment.timestamp()

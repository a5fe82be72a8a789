"""A line of a tasks file -> a job, or an error that says which line and what."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool.wire.codec import to_json
from scheduler.errors import TaskError
from scheduler.fleet.tasks import Task
from scheduler.worker.errors import JobError
from scheduler.worker.job import Job
from scheduler.worker.source import as_jobs, read_jobs


def read(*lines: Any, **defaults: Any) -> list[Job]:
    texts = [line if isinstance(line, bytes) else to_json(line) for line in lines]
    return list(read_jobs(texts, source="f.jsonl", defaults=defaults))


def wrong(*lines: Any) -> str:
    with pytest.raises(TaskError) as caught:
        read(*lines)
    return str(caught.value)


def test_lines() -> None:
    one, two, three = read(
        {"id": 7, "input": "x", "agent": "a", "attempts": 5, "conversation": "c", "not_before": 1.5e9},
        b"",
        "just a text",
        {"id": "t", "input": [{"role": "user", "content": "y"}], "tenant": "t", "priority": 2, "deadline": 9},
    )
    assert one == Job(id="7", input="x", agent="a", attempts=5, conversation="c", not_before=1.5e9)
    assert (two.id[:5], two.input) == ("task-", "just a text")
    assert (three.tenant, three.priority, three.deadline) == ("t", 2, 9)
    assert three.input == ({"role": "user", "content": "y"},)


def test_times() -> None:
    (job,) = read({"input": "x", "not_before": "2030-01-01T00:00:00Z"})
    assert job.not_before == 1893456000
    assert "no time zone" in wrong({"input": "x", "not_before": "2030-01-01T00:00:00"})
    value: object
    for value in ("tomorrow", True, []):
        assert "'not_before' must be" in wrong({"input": "x", "not_before": value})


def test_defaults_are_for_jobs_that_say_nothing() -> None:
    one, two = read(
        {"input": "x", "priority": 1}, {"input": "y", "agent": "b"}, agent="a", priority=5.0, tenant=None
    )
    assert (one.agent, one.priority, two.agent, two.priority) == ("a", 1, "b", 5.0)


def test_the_same_words_for_another_agent_are_another_job() -> None:
    (plain,), (mine,), (named,) = read("x"), read("x", agent="a"), read({"id": "n", "input": "x"}, agent="a")
    assert mine.id == f"{plain.id}-a"
    assert named.id == "n"
    assert read("x", agent="a") == [mine]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"input": "x", "agnet": "a"}, "f.jsonl:2: unknown key 'agnet'; did you mean 'agent'?"),
        ({"input": "x", "attempts": 0}, "f.jsonl:2: 'attempts' must be a whole number of at least 1, not 0"),
        ({"input": "x", "attempts": "3"}, "'attempts'"),
        ({"input": "x", "agent": 3}, "'agent' must be a text"),
        ({"input": "x", "conversation": "c"}, "'id' is missing: a job of a conversation needs one"),
        ({"id": "x", "input": "x", "conversation": ""}, "'conversation' must not be empty"),
        ({"id": "a\nb", "input": "x"}, "'id' must be a printable text"),
        ({"id": "x" * 201, "input": "x"}, "at most 200 characters"),
        ({"input": " "}, "'input' is empty"),
        ({"id": "first", "input": "x"}, "id 'first' is already taken by line 1"),
        (b"{", "not valid JSON"),
        (b"3", "a task is an object or a string, not a number"),
    ],
)
def test_what_is_wrong(line: Any, said: str) -> None:
    assert said in wrong({"id": "first", "input": "x"}, line)


def test_from_a_program() -> None:
    ready = Job(id="ready", input="x")
    jobs = list(
        as_jobs(
            [ready, "text", {"input": "y", "agent": "b"}, Task(id="t", input="z")], defaults={"agent": "a"}
        )
    )
    assert jobs[0] is ready
    assert [job.agent for job in jobs] == ["", "a", "b", "a"]
    assert jobs[3].id == "t"
    with pytest.raises(TaskError, match="put it into a list"):
        list(as_jobs("text"))
    with pytest.raises(TaskError, match="already taken"):
        list(as_jobs([ready, ready]))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": ""}, "id"),
        ({"attempts": True}, "attempts"),
        ({"deadline": 0.0}, "deadline"),
        ({"priority": float("nan")}, "priority"),
        ({"conversation": ""}, "conversation"),
    ],
)
def test_a_malformed_job_says_which_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(JobError) as caught:
        Job(**{"id": "x", "input": "x", **fields})
    assert caught.value.field == named


names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9)
numbers = st.floats(-1e6, 1e6)
jobs = st.builds(
    Job,
    id=names,
    input=names | st.lists(st.fixed_dictionaries({"role": names, "content": names}), min_size=1).map(tuple),
    agent=st.just("") | names,
    tenant=st.none() | names,
    priority=numbers,
    deadline=st.none() | st.floats(0.1, 1e6),
    attempts=st.integers(1, 9),
    metadata=st.dictionaries(names, names, max_size=3),
    conversation=st.none() | names,
    not_before=st.none() | numbers,
)


@given(jobs)
def test_json_and_back(job: Job) -> None:
    again = Job.from_json(job.to_json())
    assert again == job
    assert again.digest == job.digest


@given(jobs, jobs)
def test_the_digest_tells_jobs_apart(one: Job, two: Job) -> None:
    assert (one == two) == (one.digest == two.digest)


def test_a_field_of_a_newer_version_is_not_dropped() -> None:
    with pytest.raises(JobError, match="newer warmline"):
        Job.from_json(b'{"id":"x","input":"y","colour":"red"}')

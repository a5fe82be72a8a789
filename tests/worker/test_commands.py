"""`warmline enqueue`, `jobs` and `result`, as a person types them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from pool.wire.codec import encoded, from_json, to_json
from scheduler.cli import invoke
from scheduler.tools.toolbox import ToolResult
from scheduler.worker.engines import open_queue
from scheduler.worker.queue import Cause, Claim, Queue, WorkerInfo
from scheduler.worker.steps import begun_step, results_step, turn_step
from tests.worker.desk import plain
from tests.worker.test_steps import call, turn

AGENT = f"{Path(__file__).parents[2]}/bench/chaos_agent.py:agent"
ANN = WorkerInfo(id="ann", agents=("a",))


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WARMLINE_QUEUE", "sqlite:///jobs.db")
    return "sqlite:///jobs.db"


def write(*lines: Any) -> str:
    Path("tasks.jsonl").write_bytes(b"".join(to_json(line) + b"\n" for line in lines))
    return "tasks.jsonl"


def warmline(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Run a command; return what it printed, and after a failure what it said."""
    found = invoke(list(arguments))
    out, err = capsys.readouterr()
    assert found == status, err
    assert "Traceback" not in err
    return str(out if status == 0 else err)


def worker(url: str, do: Any) -> None:
    """Do something as a worker would, with the jobs that are due."""

    async def run() -> None:
        async with open_queue(url) as queue:
            await do(queue, await queue.take(ANN, limit=9))

    trio.run(run)


async def finish_all(queue: Queue, claims: list[Claim], output: Any = "an answer") -> None:
    for claim in claims:
        await queue.append(
            claim, 0, turn_step([encoded({"role": "user", "content": "x"})], turn(1, call("c1")))
        )
        await queue.append(claim, 1, results_step([ToolResult(call=call("c1"), output="it is blue")]))
        await queue.append(
            claim, 2, turn_step([encoded({"role": "user", "content": "x"})], turn(2, text="an answer"))
        )
        await queue.finish(claim, to_json({"id": claim.job.id, "outcome": "completed", "output": output}))


async def fail_all(queue: Queue, claims: list[Claim]) -> None:
    for claim in claims:
        await queue.fail(claim, Cause(type="Oops", message="it broke", code="E1"))


async def doubt_all(queue: Queue, claims: list[Claim]) -> None:
    for claim in claims:
        await queue.append(
            claim, 0, turn_step([encoded({"role": "user", "content": "x"})], turn(1, call("c1")))
        )
        await queue.append(claim, 1, begun_step(call("c1")))
        await queue.fail(claim, Cause(type="CallInDoubt", message="look (call c1) was running"))


def test_in_and_out(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = write({"id": "one", "input": "x"}, {"id": "two", "input": "y", "agent": "b"})
    said = partial(warmline, capsys)
    assert said("enqueue", tasks, "--agent", "a") == "2 jobs enqueued in sqlite:///jobs.db\n"
    assert said("enqueue", tasks, "--agent", "a").endswith("; 2 were there already\n")
    lines = [from_json(line) for line in said("enqueue", tasks, "--agent", "a", "--json").splitlines()]
    assert lines[0] == {"id": "one", "new": False, "state": "queued"}
    assert "no result yet: queued, 0 steps done" in said("result", "one", status=3)
    worker(url, finish_all)
    assert said("result", "one") == "an answer\n"
    assert from_json(said("result", "one", "--json"))["outcome"] == "completed"
    shown = said("jobs", "show", "one")
    assert "state:        done" in shown
    assert "output:       an answer" in shown
    assert from_json(said("jobs", "show", "one", "--json"))["result"]["output"] == "an answer"


def test_structured_output_is_json(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    warmline(capsys, "enqueue", write({"id": "one", "input": "x"}))
    worker(url, partial(finish_all, output={"n": [1]}))
    assert from_json(warmline(capsys, "result", "one"))["output"] == {"n": [1]}


def test_following(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    warmline(capsys, "enqueue", write({"id": "one", "input": "x"}))
    worker(url, finish_all)
    assert invoke(["result", "one", "--follow"]) == 0
    out, err = capsys.readouterr()
    assert out == "an answer\n"
    assert err.splitlines() == ['> look({"at": 1})', "< it is blue", "an answer"]
    lines = warmline(capsys, "result", "one", "--follow", "--json").splitlines()
    assert [from_json(line).get("step", "the result") for line in lines] == [
        *["turn", "results", "turn", "the result"]
    ]


def test_waiting_has_an_end(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    warmline(capsys, "enqueue", write({"id": "one", "input": "x"}))
    assert "no result yet" in warmline(capsys, "result", "one", "--wait", "--timeout", "0.1", status=3)


def test_the_list(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    long = "a very long name that would not fit into a line of eighty columns at all"
    warmline(capsys, "enqueue", write(*({"id": f"{long}-{n}", "input": "x", "agent": "a"} for n in range(3))))
    said = partial(warmline, capsys)
    assert said("jobs").startswith("3 due, 0 later, 0 running, 0 done, 0 dead, oldest waits 0 s; 0 workers\n")
    assert f"{long}-2" in said("jobs")  # whole, in a pipe
    assert said("jobs", "--limit", "2").splitlines()[-1] == f"more with --after {long}-1, or --limit N"
    assert len(said("jobs", "--after", f"{long}-1", "--json").splitlines()) == 1
    worker(url, fail_all)
    assert "Oops: it broke" in said("jobs", "--state", "dead")
    assert len(said("jobs", "--state", "done", "--json")) == 0
    assert from_json(said("jobs", "--json", "--limit", "1"))["cause"] == {
        "type": "Oops",
        "message": "it broke",
        "code": "E1",
    }


def test_dead_letters(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = partial(warmline, capsys)
    said("enqueue", write(*({"id": name, "input": "x"} for name in ("one", "two", "three", "four"))))
    worker(url, fail_all)
    assert said("result", "one", status=1) == "warmline: job 'one' failed: Oops: it broke\n"
    assert "cause:        Oops [E1]: it broke" in said("jobs", "show", "one")
    assert said("jobs", "retry", "one", "two") == "2 jobs queued again\n"
    assert "is queued: only a dead letter" in said("jobs", "retry", "one", status=1)
    assert said("jobs", "retry", "--all") == "2 jobs queued again\n"
    worker(url, fail_all)
    assert said("jobs", "drop", "one") == "1 job dropped\n"
    assert said("jobs", "drop", "--all-dead") == "3 jobs dropped\n"
    assert said("jobs").startswith("0 due")


def test_calls_in_doubt_are_a_persons(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = partial(warmline, capsys)
    said("enqueue", write({"id": "one", "input": "x"}, {"id": "two", "input": "x"}))
    worker(url, doubt_all)
    assert said("jobs", "retry", "--all") == "0 jobs queued again\n"
    said("jobs", "retry", "one")
    assert "no call 'c2' waits for an answer (those that do: c1)" in said(
        "jobs", "retry", "two", "--answer", "c2=it had worked", status=2
    )
    said("jobs", "retry", "two", "--answer", "c1=it had worked")

    async def look(queue: Queue, claims: list[Claim]) -> None:
        assert [from_json(step)["step"] for step in plain(await queue.steps("one"))][2:] == ["allowed"]
        answer = from_json(plain(await queue.steps("two"))[2])
        assert answer["results"][0]["output"] == "it had worked"

    worker(url, look)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["result", "none"], 2, "no job 'none'; it was never enqueued"),
        (["jobs", "show", "none"], 2, "no job 'none'"),
        (["jobs", "drop", "none"], 2, "no job 'none'"),
        (["jobs", "drop"], 2, "Name the jobs, or say --all-dead"),
        (["jobs", "retry"], 2, "Name the jobs, or say --all"),
        (["jobs", "retry", "one", "--answer", "a"], 2, "'a': write CALL_ID=TEXT"),
        (["jobs", "retry", "--all", "--answer", "a=b"], 2, "--answer is for a single job"),
        (["enqueue", "none.jsonl"], 2, "none.jsonl: cannot be read: No such file"),
        (["enqueue", "empty.jsonl"], 2, "no tasks: the file is empty"),
        (["jobs", "--queue", "nosuch://x"], 2, "no engine for this scheme"),
        (["jobs", "--queue", "jobs.db"], 2, "write sqlite:///jobs.db"),
        (
            ["work", "--agent", AGENT, "--url", "http://127.0.0.1:9/v1", "--queue", "x.db"],
            2,
            "write sqlite:///x.db",
        ),
        (["work", "--agent", "nobody:here"], 2, "no module named 'nobody'"),
        (["work", "--agent", "x", "--memory-limit", "lots"], 2, "'lots' is no size"),
        (["work", "--agent", "x", "--emulator-seed", "1"], 2, "is for the emulator"),
    ],
)
def test_what_is_wrong_is_one_line(
    url: str, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    Path("empty.jsonl").touch()
    line = warmline(capsys, *arguments, status=status)
    assert said in line
    assert line.startswith("warmline: error: ")
    assert line.count("\n") == 1


def test_other_content_under_the_same_id(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    warmline(capsys, "enqueue", write({"id": "one", "input": "x"}))
    line = warmline(
        capsys, "enqueue", write({"id": "two", "input": "x"}, {"id": "one", "input": "y"}), status=2
    )
    assert "job 'one' is in the queue with other content; nothing was enqueued" in line
    assert warmline(capsys, "jobs").startswith("1 due")


def test_who_has_no_worker_is_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    worker(url, finish_all)
    assert invoke(["enqueue", write({"input": "x", "agent": "painter"})]) == 0
    assert "no worker that lives has the agent painter" in capsys.readouterr().err


def test_lines_fit_a_terminal() -> None:
    from scheduler.worker.job import Job
    from scheduler.worker.queue import Record, State
    from scheduler.worker.showing import Table

    record = Record(
        job=Job(id="x" * 90, input="y", agent="z" * 40),
        state=State.DEAD,
        enqueued_at=0.0,
        due_at=0.0,
        cause=Cause(type="Oops", message="it broke " * 20),
    )
    table = Table(80)
    assert len(table.row(record)) == 80
    assert len(table.head()) <= 80

"""The smaller parts of a worker: verdicts, kept conversations, health, names of agents, what is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, field

from pool.errors import ConnectionLost, DialFailed, FrameTooLarge, PoolError, ResponseFailed, SettingsError
from pool.wire.codec import from_json
from scheduler.agent import Agent
from scheduler.errors import AgentNotFound, BudgetExceeded, RetryBudgetExceeded
from scheduler.telemetry.address import Address
from scheduler.worker.errors import CheckpointUnreadable
from scheduler.worker.health import HealthPage
from scheduler.worker.hot import HotConversations
from scheduler.worker.prepare import _next_port, _numbered
from scheduler.worker.queue import State
from scheduler.worker.seal import Seal
from scheduler.worker.service import named_agents
from scheduler.worker.showing import span
from scheduler.worker.supervisor import Supervisor
from scheduler.worker.verdict import Verdict, delay_before, judge
from tests.worker.desk import desk, job


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (DialFailed("no"), Verdict.NOT_ITS_FAULT),
        (ResponseFailed("no", status=401), Verdict.NOT_ITS_FAULT),
        (ResponseFailed("no", code="insufficient_quota", status=429), Verdict.NOT_ITS_FAULT),
        (CheckpointUnreadable("j", "is encrypted", elsewhere=True), Verdict.NOT_ITS_FAULT),
        (CheckpointUnreadable("j", "is damaged"), Verdict.DEAD),
        (ConnectionLost("gone", sent=True), Verdict.AGAIN),
        (ResponseFailed("busy", status=503), Verdict.AGAIN),
        (ResponseFailed("slow down", status=429), Verdict.AGAIN),
        (ResponseFailed("broke off", started=True), Verdict.AGAIN),
        (RetryBudgetExceeded(wait=1, limit=2), Verdict.AGAIN),
        (KeyError("a tool's own"), Verdict.AGAIN),
        (ResponseFailed("bad input", status=400), Verdict.DEAD),
        (BudgetExceeded("max_turns", 1, 1), Verdict.DEAD),
        (FrameTooLarge(size=2, limit=1), Verdict.DEAD),
        (SettingsError("tenant", "", "no"), Verdict.DEAD),
        (PoolError("whatever else"), Verdict.DEAD),
    ],
    ids=repr,
)
def test_verdicts(error: Exception, verdict: Verdict) -> None:
    assert judge(error) is verdict


def test_a_job_rests_ever_longer() -> None:
    assert [delay_before(strikes) for strikes in (0, 1, 2, 3, 4, 99)] == [2, 8, 32, 128, 300, 300]


@define(eq=False)
class Talk:
    """Something that can be closed."""

    closed: int = field(default=0, init=False)

    def close(self) -> None:
        """Count."""
        self.closed += 1


def test_kept_conversations() -> None:
    hot, talks = HotConversations(2, 10.0), [Talk() for _ in range(4)]

    def keep(number: int, *, now: float = 0.0, chapter: int = 1) -> None:
        hot.keep(f"c{number}", talks[number], chapter=chapter, store=False, size=7, now=now)

    def pop(number: int, *, now: float = 1.0, chapter: int = 1, store: bool = False) -> Any:
        kept = hot.pop(f"c{number}", chapter=chapter, store=store, now=now)
        return kept and kept.conversation

    keep(0)
    assert pop(0) is talks[0]
    assert pop(0) is None
    for unfit in ({"chapter": 2}, {"store": True}, {"now": 10.0}):
        keep(0)
        assert pop(0, **unfit) is None
    assert talks[0].closed == 3
    for number in (1, 2, 3):
        keep(number, now=float(number))
    assert (talks[1].closed, len(hot)) == (1, 2)  # the oldest made room
    hot.tidy(12.5)
    assert (talks[2].closed, talks[3].closed) == (1, 0)
    hot.clear()
    assert (talks[3].closed, len(hot)) == (1, 0)


def test_agents_by_name() -> None:
    made = {"m:a": Agent(model="x", name="one"), "m:b": Agent(model="y", name="two")}
    load: Callable[[str], Agent] = made.__getitem__
    assert named_agents(["m:a", "second=m:b"], load, None) == {"one": made["m:a"], "second": made["m:b"]}
    assert named_agents(["m:a"], load, "z")["one"].model == "z"
    with pytest.raises(AgentNotFound, match="two agents are called 'one'"):
        named_agents(["m:a", "one=m:b"], load, None)


def test_what_each_child_has_of_its_own() -> None:
    assert _numbered("logs/w.hlog", 1) == "logs/w-2.hlog"
    assert _numbered(None, 1) is None
    assert _next_port(Address("h", 9100), 2) == Address("h", 9102)
    assert _next_port(Address("h", 0), 2) == Address("h", 0)


def test_spans() -> None:
    assert [span(seconds) for seconds in (0.2, 119, 120, 7199, 7200, 200_000)] == [
        *["0 s", "119 s", "2 min", "120 min", "2 h", "2 d"]
    ]


@define(eq=False)
class Heard:
    """What was answered."""

    status: int = field(default=0, init=False)
    content: bytes = field(default=b"", init=False)

    async def answer(self, status: int, content: bytes, headers: object) -> None:
        """Keep it."""
        await trio.lowlevel.checkpoint()
        self.status, self.content = status, content


async def ask(page: HealthPage, path: str) -> Heard:
    from pool.web import Head

    heard = Heard()
    assert await page.page(heard, Head(method="GET", target=path))  # type: ignore[arg-type]  # as far as it is used
    return heard


async def test_health_says_what_is_wrong(autojump_clock: object) -> None:
    async with desk() as d:
        await d.put(job("one", "calls=1"), job("two", agent="nobody"))
        d.world.network.down_until = 100.0
        worker = d.hire()
        page = HealthPage(worker)
        await trio.sleep(90)
        heard = await ask(page, "/healthz")
        assert heard.status == 503
        assert "paused: " in from_json(heard.content)["wrong"][0]
        await d.result("one")
        assert (await ask(page, "/healthz")).status == 200
        assert from_json((await ask(page, "/queue")).content) == {
            **{"backlog": 1, "due": 1, "later": 0, "running": 0, "done": 1, "dead": 0},
            "oldest": pytest.approx(trio.current_time()),
        }
        assert b'warmline_worker_ended_jobs_total{how="done"} 1\n' in (await ask(page, "/metrics")).content
        d.queue.down = True
        await trio.sleep(30)
        heard = await ask(page, "/healthz")
        assert "the queue has not answered for" in from_json(heard.content)["wrong"][0]
        assert (await ask(page, "/queue")).status == 503
        d.queue.down = False
        await trio.sleep(15)
        assert (await ask(page, "/healthz")).status == 200
        worker.stop()
        assert from_json((await ask(page, "/healthz")).content)["wrong"] == ["stopping"]


async def test_encrypted_checkpoints_and_a_worker_without_the_key(autojump_clock: object) -> None:
    async with desk(tool_seconds=5.0) as d:
        await d.put(job("one", "calls=2", attempts=1))
        first = d.hire(seal=Seal([bytes(32)]))
        await trio.sleep(7)
        first.stop()
        await trio.sleep(10)
        steps = await d.queue.steps("one")
        assert steps
        assert all(b"look" not in step.body for step in steps)
        keyless = d.hire()
        await trio.sleep(20)
        assert keyless.fault is not None
        assert "encrypted and there is no key here" in str(keyless.fault)
        assert (await d.queue.get("one")).state is not State.DEAD
        keyless.stop()
        await trio.sleep(70)
        d.hire(seal=Seal([bytes(range(32)), bytes(32)]))
        (record,) = await d.ended("one")
        assert record.state is State.DONE


async def test_jobs_go_to_the_agent_that_they_name(autojump_clock: object) -> None:
    async with desk() as d:
        first = Agent(model="emulated", name="first", instructions="I am first.")
        second = Agent(model="emulated", name="second", max_turns=1, tools=list(d.agent.tools))
        await d.put(job("a", "calls=0"), job("b", "calls=1", agent="second"), job("c", agent="third"))
        d.hire(agents={"first": first, "second": second})
        await d.result("a")
        (b,) = await d.ended("b")
        assert b.cause is not None
        assert b.cause.type == "BudgetExceeded"
        assert (await d.queue.get("c")).state is State.QUEUED


async def test_until_empty(autojump_clock: object) -> None:
    from scheduler.worker.worker import Phase, Why

    async with desk() as d:
        await d.put(job("a"), job("later", not_before=1e9 + 50))
        worker = d.hire(until_empty=True)
        await trio.sleep(40)
        assert worker.phase is Phase.WORKING
        await trio.sleep(30)
        assert (worker.phase, worker.why) == (Phase.DONE, Why.EMPTY)
        assert worker.ended == {"done": 2}


async def test_hurried_it_hands_back_in_mid_turn(autojump_clock: object) -> None:
    async with desk(tool_seconds=50.0) as d:
        await d.put(job("a"))
        worker = d.hire(grace=100.0)
        await trio.sleep(5)
        worker.stop()
        await trio.sleep(1)
        assert (await d.queue.get("a")).state is State.RUNNING
        worker.hurry()
        await trio.sleep(1)
        record = await d.queue.get("a")
        assert (record.state, record.strikes, record.steps) == (State.QUEUED, 0, 1)


class TestSupervisor:
    """Children that end in all manners; their own processes, but small ones."""

    async def supervise(self, code: str, count: int = 1) -> tuple[int, list[str]]:
        said: list[str] = []
        supervisor = Supervisor([sys.executable, "-c", code], count, 1.0, said.append)
        send, signals = trio.open_memory_channel[int](1)
        with trio.fail_after(30):
            async with send, signals:
                return await supervisor.run(signals), said

    async def test_all_end_well(self) -> None:
        assert await self.supervise("pass", 2) == (0, [])

    async def test_wrong_usage_ends_everything(self) -> None:
        code = (
            "import os, sys, time; os.environ['WARMLINE_WORK_CHILD'] == '0' and sys.exit(2); time.sleep(60)"
        )
        assert await self.supervise(code, 2) == (2, [])

    async def test_one_that_dies_is_started_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scheduler.worker.supervisor.FIRST_DELAY", 0.01)
        file = tmp_path / "lives"
        code = "import os, sys; os.path.exists({0!r}) and sys.exit(0); open({0!r}, 'w'); sys.exit(75)"
        assert await self.supervise(code.format(str(file))) == (
            0,
            ["worker 1 ended with status 75; started again in 0.01 s"],
        )

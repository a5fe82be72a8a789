"""A fleet from a plain script, from asyncio, from trio; over real sockets."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import scheduler
from pool.emulator import EmulatorSettings, serve_emulator
from pool.errors import DialFailed, SettingsError
from pool.settings import Endpoint
from pool.wire.codec import from_json
from scheduler import (
    Agent,
    FleetHalted,
    OutputFileError,
    SchedulerSettings,
    TaskError,
    TaskResult,
    run_fleet,
    run_fleet_async,
    tool,
)
from scheduler.fleet import launch
from tests.support.emulated import emulated


@tool
def look(where: str) -> str:
    """Look."""
    return f"seen {where}"


AGENT = Agent(model="gpt-test", tools=[look])


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with emulated() as url:
        yield Endpoint.emulator(url)


@pytest.fixture(scope="module")
def slow() -> Iterator[Endpoint]:
    with emulated(latency="base=0.5") as url:
        yield Endpoint.emulator(url)


def outcomes(path: Path) -> dict[str, str]:
    lines = [from_json(line) for line in path.read_bytes().splitlines()]
    return {line["id"]: line["outcome"] for line in lines}


def test_a_plain_script(endpoint: Endpoint) -> None:
    report = run_fleet(["one", {"input": "two", "id": "2"}], AGENT, endpoint=endpoint, connections=1)
    assert report.ok
    assert (report.runs.total, report.runs.completed, report.turns, report.tools_executed) == (2, 2, 6, 4)
    assert (report.connections.opened, report.placements) == (1, {"replay:new": 2, "hot": 4})
    assert "2" in {result.id for result in report.results}
    assert all("context:" in result.output for result in report.results)


def test_results_go_to_a_file_and_are_resumed(endpoint: Endpoint, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = run_fleet(["one", "two"], AGENT, endpoint=endpoint, out=out)
    assert (first.results, first.results_file) == ((), str(out))
    with pytest.raises(OutputFileError, match="already there"):
        run_fleet(["one"], AGENT, endpoint=endpoint, out=out)
    again = run_fleet(["one", "two", "three"], AGENT, endpoint=endpoint, out=str(out), resume=True)
    assert (again.runs.total, again.runs.skipped, again.runs.completed, again.ok) == (3, 2, 1, True)
    assert len(outcomes(out)) == 3
    run_fleet(["four"], AGENT, endpoint=endpoint, out=out, overwrite=True)
    assert len(outcomes(out)) == 1


def test_results_go_to_a_function(endpoint: Endpoint) -> None:
    results: list[TaskResult] = []
    report = run_fleet(["one"], AGENT, endpoint=endpoint, on_result=results.append)
    assert [result.outcome for result in results] == ["completed"]
    assert report.results == ()


def test_mistakes_are_plain_exceptions(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        run_fleet(["one"], AGENT)
    with pytest.raises(TaskError, match="tasks:1"):
        run_fleet([{"inptu": "x"}], AGENT, endpoint=endpoint)
    with pytest.raises(SettingsError, match="excludes overwrite"):
        run_fleet(["one"], AGENT, endpoint=endpoint, out="x", resume=True, overwrite=True)
    with pytest.raises(SettingsError, match="name it"):
        run_fleet(["one"], AGENT, endpoint=endpoint, resume=True)
    with pytest.raises(SettingsError, match="max_connections"):
        run_fleet(["one"], AGENT, endpoint=endpoint, connections=0)
    with pytest.raises(DialFailed, match="cannot reach"):
        run_fleet(["one"], AGENT, endpoint=Endpoint.open_responses("http://127.0.0.1:9/v1"))


def test_what_is_no_agent_is_said_before_anything_is_opened(endpoint: Endpoint) -> None:
    wrong: Any = "gpt-test"
    with pytest.raises(SettingsError, match=r"agent = '\(str\)': must be an Agent"):
        run_fleet(["one"], wrong, endpoint=endpoint)


def test_what_cannot_take_results_is_said_before_anything_is_opened(endpoint: Endpoint) -> None:
    wrong: Any = "results.jsonl"
    with pytest.raises(SettingsError, match=r"on_result = 'results\.jsonl': must be a function"):
        run_fleet(["one"], AGENT, endpoint=endpoint, on_result=wrong)
    with pytest.raises(SettingsError, match="on_result"):
        asyncio.run(run_fleet_async(["one"], AGENT, endpoint=endpoint, on_result=wrong))


def test_over_http_alone_no_socket_has_to_open(endpoint: Endpoint) -> None:
    deaf = endpoint.with_(url=endpoint.url + "/elsewhere")
    report = run_fleet(["one"], AGENT, endpoint=deaf, settings=SchedulerSettings(transport="http"))
    assert report.ok
    with pytest.raises(DialFailed, match="404"):
        run_fleet(["one"], AGENT, endpoint=deaf, settings=SchedulerSettings(transport="websocket"))


async def test_a_server_without_websockets_is_used_over_http() -> None:
    settings = EmulatorSettings(default_script="calls=2", faults="refuse,status=426,times=1")
    async with serve_emulator(settings) as running:
        report = await run_fleet_async(["one"], AGENT, endpoint=Endpoint.emulator(running.url))
    assert report.ok
    assert "http:fallback" in report.placements


def test_a_fleet_that_ends_early_loses_no_result(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = launch.launch

    async def broken_off(*args: Any, **options: Any) -> launch.Landed:
        landed = await whole(*args, **options)
        return launch.Landed(report=landed.report, fault=FleetHalted("the key was withdrawn"))

    monkeypatch.setattr("scheduler.fleet.entry.launch", broken_off)
    with pytest.raises(FleetHalted, match="withdrawn") as caught:
        run_fleet(["one", "two"], AGENT, endpoint=endpoint)
    assert [result.outcome for result in caught.value.results] == ["completed", "completed"]


def test_what_the_callers_function_raises_is_raised(endpoint: Endpoint) -> None:
    def broken(result: TaskResult) -> None:
        raise LookupError(result.outcome)

    with pytest.raises(LookupError, match="completed"):
        run_fleet(["one"], AGENT, endpoint=endpoint, on_result=broken)


@tool(inline=True)
def interrupt() -> str:
    """Interrupt."""
    raise KeyboardInterrupt


def test_an_interrupt_arrives_as_itself(endpoint: Endpoint) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_fleet(["one"], Agent(model="m", tools=[interrupt]), endpoint=endpoint)


def test_within_a_loop_it_refuses_and_names_the_other(endpoint: Endpoint) -> None:
    def refused() -> None:
        with pytest.raises(RuntimeError, match=r"would block the \w+ loop; write: await run_fleet_async"):
            run_fleet(["one"], AGENT, endpoint=endpoint)

    async def in_asyncio() -> None:
        await asyncio.sleep(0)
        refused()

    async def in_trio() -> None:
        await trio.lowlevel.checkpoint()
        refused()

    asyncio.run(in_asyncio())
    trio.run(in_trio)


async def test_within_trio_it_joins_the_run(endpoint: Endpoint) -> None:
    here = threading.get_ident()
    threads: list[int] = []
    report = await run_fleet_async(
        ["one"], AGENT, endpoint=endpoint, on_result=lambda result: threads.append(threading.get_ident())
    )
    assert report.ok
    assert threads == [here]


def test_within_asyncio_the_loop_goes_on(endpoint: Endpoint) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[Any] = []

    @tool(inline=True)
    def peek() -> str:
        """Peek."""
        seen.append((variable.get(), threading.get_ident()))
        return "peeked"

    async def program() -> None:
        variable.set("carried along")
        here, ticks = threading.get_ident(), 0
        results: list[int] = []

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticker = asyncio.create_task(tick())
        report = await run_fleet_async(
            ["one", "two"],
            Agent(model="m", tools=[peek]),
            endpoint=endpoint,
            on_result=lambda result: results.append(threading.get_ident()),
        )
        ticker.cancel()
        assert report.ok
        assert results == [here, here]
        assert ticks > 1
        assert {value for value, _ in seen} == {"carried along"}
        assert here not in {thread for _, thread in seen}

    asyncio.run(program())


def fleets_running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "warmline fleet"]


@pytest.mark.parametrize("times", [1, 3])
def test_cancelling_in_asyncio_cancels_the_fleet_and_waits_for_it(
    slow: Endpoint, tmp_path: Path, times: int
) -> None:
    out = tmp_path / "out.jsonl"

    async def program() -> None:
        loop, both_run = asyncio.get_running_loop(), asyncio.Event()

        def tasks() -> Iterator[str]:
            yield from ("one", "two")
            loop.call_soon_threadsafe(both_run.set)  # a third worker asks for a task

        fleet = asyncio.create_task(run_fleet_async(tasks(), AGENT, endpoint=slow, out=out))
        await both_run.wait()
        for _ in range(times):
            fleet.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await fleet

    asyncio.run(program())
    assert fleets_running() == []
    assert list(outcomes(out).values()) == ["cancelled", "cancelled"]


def test_cancelled_before_the_thread_has_begun(slow: Endpoint) -> None:
    async def program() -> None:
        fleet = asyncio.create_task(run_fleet_async(["one"], AGENT, endpoint=slow))
        await asyncio.sleep(0)
        fleet.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fleet

    asyncio.run(program())
    assert fleets_running() == []


def test_errors_cross_the_thread(endpoint: Endpoint) -> None:
    async def program() -> None:
        with pytest.raises(TaskError):
            await run_fleet_async([{"inptu": "x"}], AGENT, endpoint=endpoint)
        with pytest.raises(KeyboardInterrupt):
            await run_fleet_async(["one"], Agent(model="m", tools=[interrupt]), endpoint=endpoint)

    asyncio.run(program())


async def test_cancelling_in_trio_leaves_results(slow: Endpoint, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with trio.move_on_after(0.3):
        await run_fleet_async(["one", "two"], AGENT, endpoint=slow, out=out)
    assert list(outcomes(out).values()) == ["cancelled", "cancelled"]


def test_the_package_offers_what_it_names() -> None:
    for name in scheduler.__all__:
        assert getattr(scheduler, name) is not None
    assert set(scheduler.__all__) <= set(dir(scheduler))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = scheduler.nothing  # type: ignore[attr-defined]

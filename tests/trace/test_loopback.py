"""A run over real sockets: traced, shown, exported, and played back to the same agent."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from pool.emulator import EmulatorSettings, serve_emulator
from pool.settings import Endpoint, PoolSettings
from pool.wire.codec import from_json
from scheduler.agent import Agent
from scheduler.cli import invoke
from scheduler.scheduler import open_scheduler
from scheduler.settings import SchedulerSettings
from scheduler.tools import tool
from scheduler.trace import open_trace
from scheduler.trace.load import Load, load_of
from scheduler.trace.playback import schedule_of
from tests.trace.test_har import exported


@tool
async def look(at: str) -> str:
    """Look at something."""
    await trio.lowlevel.checkpoint()
    return f"saw {at}"


async def traced(path: Path, settings: EmulatorSettings, script: str, **scheduling: object) -> Load:
    agent = Agent(model="m", tools=(look,), options={"metadata": {"emulator": script}})
    with open_trace(path):
        async with serve_emulator(settings) as running:
            point = Endpoint.emulator(running.url)
            options = SchedulerSettings(**scheduling)  # type: ignore[arg-type]  # of several types
            pool = PoolSettings(min_idle=0)
            async with (
                open_scheduler(point, pool_settings=pool, settings=options) as scheduler,
                trio.open_nursery() as nursery,
            ):
                for number in range(4):
                    conversation = scheduler.conversation(name=f"run-{number}")
                    run = partial(agent.run, scheduler, f"say {number}", conversation=conversation)
                    nursery.start_soon(run)
    return load_of(str(path))


async def test_traced_shown_exported_and_played_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one"
    settings = EmulatorSettings(latency="base=0.02,output=0.002")
    first = await traced(path, settings, "calls=3 output_tokens=10 parallel=2")
    assert [len(run.turns) for run in first.runs] == [4, 4, 4, 4]
    assert all(run.complete for run in first.runs)

    assert invoke(["trace", str(path), "-c", "run-2"]) == 0
    out = capsys.readouterr().out
    assert "run           begins, tenant default" in out
    assert out.count("tool          look took") == 6
    assert "run           over after" in out
    (entry,) = exported(str(path))
    assert entry["request"]["url"].startswith("ws://127.0.0.1:")

    again = await traced(tmp_path / "two", EmulatorSettings(schedule=schedule_of(str(path))), "calls=0")
    assert [len(run.turns) for run in again.runs] == [4, 4, 4, 4]
    # Played by somebody who was served at another moment, but no turn is quicker than the quickest recorded.
    assert min(turn.first_event for turn in again.turns) >= 0.02
    assert min(turn.seconds for turn in again.turns) >= min(turn.seconds for turn in first.turns) - 0.002
    assert sum(turn.output_tokens for turn in again.turns) == sum(turn.output_tokens for turn in first.turns)


async def test_turns_over_http_are_traced_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one"
    load = await traced(path, EmulatorSettings(), "calls=1", transport="http")
    assert [len(run.turns) for run in load.runs] == [2, 2, 2, 2]
    assert {turn.reason for turn in load.turns} == {"http:setting"}
    assert invoke(["trace", str(path), "-c", "run-1", "--json"]) == 0
    turns = from_json(capsys.readouterr().out)["turns"]
    assert {turn["tries"][0]["lane"][0] for turn in turns} == {"h"}
    assert all(turn["tries"][0]["status"] == "completed" for turn in turns)
    assert [entry["request"]["method"] for entry in exported(str(path))] == ["POST"] * 8

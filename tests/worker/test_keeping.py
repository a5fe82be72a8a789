"""A run that is cut off at any point of its way goes on from what was kept, and ends as if nothing had been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field

from pool.wire.codec import from_json
from pool.wire.events import Encoded
from scheduler.agent import Agent
from scheduler.run import Run, RunResult, run_agent
from scheduler.tools import ToolContext, tool
from scheduler.tools.toolbox import ToolResult
from scheduler.turns import FunctionCall, Turn
from scheduler.worker.steps import Story, begun_step, results_step, resumed, turn_step
from tests.support.fake_conversation import (
    FakeConversation,
    FakeScheduler,
    Step,
    a_turn,
    as_conversation,
    call,
)

executed: list[str] = []


class Cut(Exception):
    """The process dies here."""


@define(eq=False)
class Notes:
    """Keeps the steps, until the process dies at the `last` thing it is told: before that is kept, or just after."""

    last: int | None = None
    kept_last: bool = False
    steps: list[bytes] = field(factory=list)
    told: int = field(default=0, init=False)

    async def ready(self) -> None:
        """Die or not."""
        await self._keep()

    def hearing(self) -> None:
        """Nobody."""

    async def turn_ended(self, given: Sequence[Encoded], turn: Turn) -> None:
        """Keep."""
        await self._keep(turn_step(given, turn))

    async def call_begins(self, call: FunctionCall) -> None:
        """Keep."""
        await self._keep(begun_step(call))

    async def calls_ended(self, results: Sequence[ToolResult]) -> None:
        """Keep."""
        await self._keep(results_step(results))

    async def _keep(self, step: bytes | None = None) -> None:
        await trio.lowlevel.checkpoint()
        cut = self.told == self.last
        self.told += 1
        if step is not None and (not cut or self.kept_last):
            self.steps.append(step)
        if cut:
            raise Cut


@tool
async def wait(seconds: float, context: ToolContext) -> str:
    """Wait."""
    executed.append(context.call_id)
    await trio.sleep(seconds)
    return f"waited {seconds}"


@tool(inline=True)
def look(at: str, context: ToolContext) -> str:
    """Look."""
    executed.append(context.call_id)
    return f"saw {at}"


@tool(repeatable=False)
async def launch(context: ToolContext) -> str:
    """Launch."""
    executed.append(context.call_id)
    await trio.sleep(1)
    return "gone"


agent = Agent(model="m", tools=[wait, look, launch], output_type=int)


def script() -> list[Step]:
    return [
        a_turn("", call("wait", '{"seconds": 2}', "c1"), call("wait", '{"seconds": 1}', "c2")),
        a_turn("not a number"),
        a_turn("", call("look", '{"at": "it"}', "c3"), call("look", '{"at": "more"}', "c4")),
        a_turn("", call("nonsense", "{}", "c5"), call("launch", "{}", "c6")),
        a_turn('{"result": 7}'),
    ]


async def go(notes: Notes, story: Story | None = None) -> tuple[RunResult, list[Any]]:
    """Run, from the beginning or from where a story ends. Return the result, and what each turn was given."""
    run, rest = Run(), script()
    if story is not None:
        run.resume(story.so_far())
        del rest[: len(story.turns)]
    fake = FakeConversation("job", rest)
    scheduler = FakeScheduler([]).real
    result = await run_agent(
        scheduler, agent, "begin", conversation=as_conversation(fake), run=run, keeper=notes
    )
    given = [[from_json(item.text) for item in items if isinstance(item, Encoded)] for items in fake.given]
    return result, given


async def undisturbed() -> tuple[RunResult, list[Any], int]:
    notes = Notes()
    result, given = await go(notes)
    return result, given, notes.told


async def test_what_is_kept_of_a_run(autojump_clock: trio.testing.MockClock) -> None:
    notes = Notes()
    result, _ = await go(notes)
    assert result.output == 7
    steps = [from_json(step) for step in notes.steps]
    kinds = [step["step"] for step in steps]
    assert kinds[:7] == ["turn", "results", "results", "turn", "turn", "results", "turn"]
    assert sorted(kinds[7:]) == ["begun", "results", "results", "turn"]
    # The shorter call is kept when it has ended, not when both have.
    assert [step["results"][0]["call_id"] for step in steps if step["step"] == "results"][:2] == ["c2", "c1"]


@pytest.mark.parametrize("kept_last", [False, True])
async def test_cut_off_at_every_point(autojump_clock: trio.testing.MockClock, kept_last: bool) -> None:
    whole, all_given, points = await undisturbed()
    assert points > 15
    for point in range(points):
        executed.clear()
        notes = Notes(last=point, kept_last=kept_last)
        with pytest.raises(Cut):
            await go(notes)
        once = list(executed)
        state = resumed("job", (), notes.steps, store=False)
        answered = {call_id for _, results in state.story.turns for call_id in results}
        result, given = await go(Notes(steps=notes.steps), state.story)
        assert result.output == 7
        assert (result.turns, result.usage) == (whole.turns, whole.usage)
        assert (result.tools_executed, result.tools_failed) == (whole.tools_executed, whole.tools_failed)
        assert given == all_given[len(state.story.turns) :], f"cut off at {point}"
        again = executed[len(once) :]
        assert not answered & set(again), "a finished tool ran again"
        assert set(executed) == {"c1", "c2", "c3", "c4", "c6"}
        # Doubt about the launch is there exactly while it has begun and has not been answered.
        doubt = [one.call_id for one in state.story.in_doubt]
        assert doubt in ([], ["c6"])
        assert ("c6" in once and "c6" not in answered) <= (doubt == ["c6"])

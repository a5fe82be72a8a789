"""The run loop: turns and tools until there is an answer, within budgets, never a tool twice."""

import dataclasses
from typing import Any

import pytest
import trio
import trio.testing

from pool.errors import ConnectionLost, ResponseFailed
from pool.wire.events import ServerEvent
from scheduler.agent import Agent
from scheduler.errors import BudgetExceeded, OutputInvalid, RunIncomplete, UnsupportedOutput
from scheduler.run import Run, run_agent
from scheduler.tools import RunEvent, ToolContext, tool
from scheduler.turns import Usage
from tests.support.fake_conversation import (
    FakeConversation,
    a_turn,
    as_conversation,
    call,
    scripted,
)

executed: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    executed.clear()


@tool(inline=True)
def note(text: str, context: ToolContext) -> str:
    executed.append(text)
    return f"{context.run} {context.turn} {text}"


@tool
async def wait(seconds: float) -> str:
    executed.append(f"{seconds}")
    await trio.sleep(seconds)
    return "waited"


agent = Agent(model="m", tools=[note, wait])


def output(call_id: str, text: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


async def test_tools_feed_the_next_turn_until_there_is_an_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    fake = scripted(
        a_turn("let me see", call("note", '{"text": "a"}')),
        a_turn(
            "",
            call("wait", '{"seconds": 2}', "call_2"),
            call("note", '{"text": "b"}', "call_3"),
            call("nope", "{}", "call_4"),
        ),
        a_turn("done", tokens=20),
    )
    result = await run_agent(fake.real, agent, "go", metadata={"task": "7"})
    assert fake.only.given == [
        "go",
        [output("call_1", "conversation 1 1 a")],
        [
            output("call_2", "waited"),
            output("call_3", "conversation 1 2 b"),
            output("call_4", "error: unknown tool 'nope'; the tools are: note, wait"),
        ],
    ]
    assert len({id(request) for request in fake.only.requests}) == 1
    assert fake.only.requests[0].options["metadata"] == {"task": "7"}
    assert (result.output, result.text, result.refusal, result.response_id) == (
        "done",
        "done",
        None,
        "resp_done",
    )
    assert (result.turns, result.tools_executed, result.tools_failed) == (3, 3, 1)
    assert result.usage == Usage(input_tokens=37, output_tokens=3, total_tokens=40)
    assert result.timings == ((0.25, 1.0),) * 3
    assert [placement.reason for placement in result.placements] == ["hot"] * 3
    assert result.tool_seconds == pytest.approx(2)
    assert result.seconds == pytest.approx(2)
    assert fake.only.closed == 1


async def test_a_conversation_that_is_given_stays_open() -> None:
    fake = FakeConversation("mine", [a_turn("one"), a_turn("two")])
    for text in ("one", "two"):
        result = await run_agent(scripted().real, agent, [], conversation=as_conversation(fake))
        assert result.output == text
        assert result.conversation is as_conversation(fake)
    assert fake.closed == 0


async def test_max_turns_stops_before_the_turn_too_many() -> None:
    fake = scripted(*[a_turn("", call("note", '{"text": "a"}'))] * 5)
    run = Run()
    with pytest.raises(BudgetExceeded) as caught:
        await run_agent(fake.real, Agent(model="m", tools=[note], max_turns=3), "go", run=run)
    assert (caught.value.which, caught.value.used, caught.value.limit) == ("max_turns", 3, 3)
    assert len(fake.only.given) == run.turns == 3
    assert run.pending == [output("call_1", "conversation 1 3 a")]
    assert fake.only.closed == 1


async def test_max_tokens_counts_all_turns() -> None:
    fake = scripted(*[a_turn("", call("note", '{"text": "a"}'), tokens=40)] * 5)
    with pytest.raises(BudgetExceeded, match="max_tokens: used 120 of 100"):
        await run_agent(fake.real, Agent(model="m", tools=[note], max_tokens=100), "go")
    assert len(fake.only.given) == 3


async def test_an_answer_over_the_budget_is_still_an_answer() -> None:
    fake = scripted(a_turn("big", tokens=500))
    assert (await run_agent(fake.real, Agent(model="m", max_tokens=100), "go")).output == "big"


async def test_a_failed_run_tells_what_was_done_and_can_go_on_without_running_tools_again() -> None:
    lost = ConnectionLost("gone", sent=True)
    fake = FakeConversation("mine", [a_turn("hm", call("note", '{"text": "a"}')), lost, lost, a_turn("done")])
    run = Run()
    with pytest.raises(ConnectionLost):
        await run_agent(scripted().real, agent, "go", conversation=as_conversation(fake), run=run)
    assert (run.turns, run.tools_executed, run.text, run.usage.total_tokens) == (1, 1, "hm", 10)
    assert run.conversation is as_conversation(fake)
    with pytest.raises(ConnectionLost):
        await run_agent(scripted().real, agent, run.pending, conversation=as_conversation(fake), run=run)
    result = await run_agent(scripted().real, agent, run.pending, conversation=as_conversation(fake), run=run)
    assert executed == ["a"]
    assert fake.given == ["go", *[[output("call_1", "mine 1 a")]] * 3]
    assert (result.output, result.turns, result.tools_executed) == ("done", 2, 1)


async def test_its_own_conversation_is_closed_when_the_run_fails() -> None:
    fake = scripted(ResponseFailed("no", status=400))
    with pytest.raises(ResponseFailed):
        await run_agent(fake.real, agent, "go")
    assert fake.only.closed == 1


@pytest.mark.parametrize("seconds", [0.5, 1.25, 2.5, 3.75])
async def test_cancelled_at_any_time_it_leaves_nothing_behind(
    seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    fake = scripted(
        [a_turn("", call("wait", '{"seconds": 1}'), call("wait", '{"seconds": 2}', "call_2"))],
        [a_turn("done")],
    )
    run = Run()
    with trio.move_on_after(seconds) as scope:
        await run_agent(fake.real, agent, "go", run=run)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(seconds)
    assert fake.only.closed == 1
    assert run.seconds == pytest.approx(seconds)
    assert run.turns == (seconds > 1)


async def test_an_incomplete_turn_is_an_error_that_keeps_the_text() -> None:
    cut = a_turn("half of", call("note", '{"te'), status="incomplete", reason="max_output_tokens")
    run = Run()
    with pytest.raises(RunIncomplete, match="max_output_tokens") as caught:
        await run_agent(scripted(cut).real, agent, "go", run=run)
    assert (caught.value.reason, caught.value.text) == ("max_output_tokens", "half of")
    assert executed == []
    assert run.turns == 1
    with pytest.raises(RunIncomplete, match="unknown"):
        await run_agent(scripted(a_turn(status="incomplete")).real, agent, "go")


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [("mcp_approval_request", "never"), ("custom_tool_call", "@tool"), ("shell_call", "container")],
)
async def test_what_no_tool_can_answer_is_an_error_with_a_remedy(kind: str, remedy: str) -> None:
    waiting = a_turn("", call("note", '{"text": "a"}'), items=[{"type": kind, "call_id": "c9"}])
    with pytest.raises(UnsupportedOutput, match=remedy) as caught:
        await run_agent(scripted(waiting).real, agent, "go")
    assert caught.value.kind == kind
    assert executed == []


async def test_what_the_server_ran_itself_needs_no_answer() -> None:
    served = a_turn(
        "done",
        items=[
            {"type": "web_search_call", "id": "w"},
            {"type": "shell_call", "call_id": "c9"},
            {"type": "shell_call_output", "call_id": "c9"},
        ],
    )
    assert (await run_agent(scripted(served).real, agent, "go")).output == "done"


def refusing(text: str) -> Any:
    return a_turn(
        items=[
            {"type": "reasoning"},
            {"type": "message", "content": [{"type": "output_text", "text": ""}]},
            {"type": "message", "content": [{"type": "refusal", "refusal": text}]},
        ]
    )


async def test_a_refusal_is_told_apart_from_an_empty_answer() -> None:
    result = await run_agent(scripted(refusing("I won't")).real, agent, "go")
    assert (result.output, result.refusal) == ("", "I won't")
    result = await run_agent(scripted(a_turn("")).real, agent, "go")
    assert (result.output, result.refusal) == ("", None)


@dataclasses.dataclass
class Score:
    value: int

    def __post_init__(self) -> None:
        if self.value > 100:
            raise KeyError("above 100")


judge = Agent(model="m", output_type=Score, output_retries=2)


async def test_a_structured_answer_is_a_value() -> None:
    result = await run_agent(scripted(a_turn('{"value": 7}')).real, judge, "go")
    assert (result.output, result.text) == (Score(7), '{"value": 7}')


async def test_a_wrong_answer_is_explained_and_asked_for_again() -> None:
    fake = scripted(a_turn("seven"), a_turn('{"value": 700}'), a_turn('{"value": 7}'))
    result = await run_agent(fake.real, judge, "go")
    assert (result.output, result.turns) == (Score(7), 3)
    first, second = fake.only.given[1:]
    assert "malformed" in str(first)
    assert "above 100" in str(second)
    assert isinstance(first, list)
    assert first[0]["role"] == "user"


async def test_asking_again_is_bounded() -> None:
    fake = scripted(*[a_turn('{"value": "x"}')] * 9)
    with pytest.raises(OutputInvalid) as caught:
        await run_agent(fake.real, judge, "go")
    assert (caught.value.attempts, caught.value.text) == (3, '{"value": "x"}')
    assert "$.value" in caught.value.problem
    assert len(fake.only.given) == 3


async def test_a_refusal_is_not_asked_again() -> None:
    with pytest.raises(OutputInvalid, match="the model refused: no") as caught:
        await run_agent(scripted(refusing("no")).real, judge, "go")
    assert caught.value.attempts == 1


async def test_events_reach_the_caller_in_order_and_in_its_task(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[str] = []
    task = trio.lowlevel.current_task()

    async def on_event(event: RunEvent) -> None:
        await trio.lowlevel.checkpoint()
        assert trio.lowlevel.current_task() is task
        told.append(event.type)

    fake = scripted(
        [ServerEvent(type="response.created"), a_turn("", call("note", '{"text": "a"}'))],
        [ServerEvent(type="response.output_text.delta"), a_turn("done")],
    )
    result = await run_agent(fake.real, agent, "go", on_event=on_event)
    assert told == [
        "response.created",
        "warmline.tool_started",
        "warmline.tool_finished",
        "response.output_text.delta",
    ]
    assert (result.output, result.tools_executed) == ("done", 1)


async def test_a_tools_fatal_error_ends_the_run() -> None:
    @tool(fatal=(PermissionError,))
    async def fetch() -> str:
        await trio.lowlevel.checkpoint()
        raise PermissionError("revoked")

    fake = scripted(a_turn("", call("fetch"), call("fetch", call_id="call_2")))
    with pytest.raises(PermissionError, match="revoked"):
        await run_agent(fake.real, Agent(model="m", tools=[fetch]), "go")
    assert fake.only.closed == 1

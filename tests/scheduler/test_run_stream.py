"""Reading a run's events while it goes on."""

import pytest
import trio
import trio.testing

from pool.errors import ConnectionLost, SettingsError
from pool.wire.events import ServerEvent
from scheduler.agent import Agent
from scheduler.run import Run
from scheduler.tools import RunEvent, tool
from tests.support.fake_conversation import FakeScheduler, Step, a_turn, call, scripted


@tool(inline=True)
def echo(text: str) -> str:
    return text


agent = Agent(model="m", tools=[echo])


def delta(text: str) -> ServerEvent:
    return ServerEvent(type="response.output_text.delta", payload={"delta": text})


def two_turns() -> FakeScheduler:
    first: Step = [delta("a"), a_turn("a", call("echo", '{"text": "x"}'))]
    second: Step = [delta("b"), delta("c"), a_turn("bc")]
    return scripted(first, second)


async def test_events_then_the_result(autojump_clock: trio.testing.MockClock) -> None:
    fake = two_turns()
    told: list[RunEvent] = []
    async with agent.stream(fake.real, "go", metadata={"task": "7"}) as stream:
        with pytest.raises(RuntimeError, match="not finished"):
            _ = stream.result
        async for event in stream:
            told.append(event)  # noqa: PERF401  # each is looked at as it comes
    assert [event.payload.get("delta", event.type) for event in told] == [
        "a",
        "warmline.tool_started",
        "warmline.tool_finished",
        "b",
        "c",
    ]
    assert stream.result.output == "bc"
    assert stream.run.turns == stream.result.turns == 2
    assert fake.only.requests[0].options["metadata"] == {"task": "7"}


async def test_finish_skips_the_rest(autojump_clock: trio.testing.MockClock) -> None:
    async with agent.stream(two_turns().real, "go") as stream:
        assert (await stream.finish()).output == "bc"


async def test_leaving_early_cancels_the_run(autojump_clock: trio.testing.MockClock) -> None:
    fake, run = two_turns(), Run()
    async with agent.stream(fake.real, "go", run=run) as stream:
        async for event in stream:
            if event.type == "warmline.tool_finished":
                break
    assert stream.run is run
    assert run.turns == 1
    assert fake.only.closed == 1
    with pytest.raises(RuntimeError):
        _ = stream.result


async def test_a_failed_run_raises_where_its_events_end(autojump_clock: trio.testing.MockClock) -> None:
    events: Step = [delta("a"), a_turn("", call("echo", '{"text": "x"}'), tokens=1)]
    fake = scripted(events, ConnectionLost("gone", sent=True))
    run, told = Run(), 0

    async def read() -> None:
        nonlocal told
        async with agent.stream(fake.real, "go", run=run) as stream:
            async for _ in stream:
                told += 1

    with pytest.raises(ConnectionLost, match="gone"):
        await read()
    assert (told, run.turns) == (3, 1)


async def test_a_failed_run_can_be_handled_inside() -> None:
    async with agent.stream(scripted(ConnectionLost("gone", sent=False)).real, "go") as stream:
        with pytest.raises(ConnectionLost):
            await stream.finish()
        with pytest.raises(ConnectionLost):
            await stream.finish()


async def test_an_error_of_the_body_comes_out_as_itself(autojump_clock: trio.testing.MockClock) -> None:
    fake = two_turns()

    async def read() -> None:
        async with agent.stream(fake.real, "go") as stream:
            async for _ in stream:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await read()
    assert fake.only.closed == 1


async def test_cancelling_the_reader_cancels_the_run(autojump_clock: trio.testing.MockClock) -> None:
    fake = two_turns()
    with trio.move_on_after(0.5) as scope:
        async with agent.stream(fake.real, "go") as stream:
            await stream.finish()
    assert scope.cancelled_caught
    assert fake.only.closed == 1


async def test_a_slow_reader_holds_the_run_back(autojump_clock: trio.testing.MockClock) -> None:
    fake = scripted([*(delta(str(n)) for n in range(10)), a_turn("done")])
    async with agent.stream(fake.real, "go", buffer=2) as stream:
        await trio.testing.wait_all_tasks_blocked()
        async for event in stream:
            assert event.payload["delta"] == "0"
            break
        await trio.sleep(60)
        assert stream.run.turns == 0, "it must wait for its reader"
        await stream.finish()
    assert stream.result.output == "done"


async def test_the_buffer_must_be_a_size() -> None:
    with pytest.raises(SettingsError, match="buffer = -1"):
        async with agent.stream(scripted().real, "go", buffer=-1):
            pass

"""The calls of one turn: concurrent, in order, and whatever fails is something the model can read."""

import functools
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from scheduler.tools import (
    RunEvent,
    Tool,
    Toolbox,
    ToolContext,
    ToolFinished,
    ToolResult,
    ToolStarted,
    thread_limiter,
    tool,
)
from scheduler.turns import FunctionCall


@tool(inline=True)
def add(a: int, b: int = 1) -> int:
    return a + b


@tool(inline=True)
def divide(a: int) -> float:
    return 1 / a


@tool
def upper(text: str) -> str:
    return f"{text.upper()} {threading.current_thread() is threading.main_thread()}"


@tool
async def nap(seconds: float, say: str = "") -> str:
    await trio.sleep(seconds)
    return say or f"slept {seconds:g}"


@tool
async def where(context: ToolContext) -> str:
    await trio.lowlevel.checkpoint()
    return f"{context.run} {context.call_id} {context.turn}"


def box(*tools: Tool[..., Any], **settings: Any) -> Toolbox:
    return Toolbox(tools={entry.name: entry for entry in tools}, **settings)


def calls(*wanted: tuple[str, str]) -> list[FunctionCall]:
    return [
        FunctionCall(call_id=f"call_{number}", name=name, arguments=arguments)
        for number, (name, arguments) in enumerate(wanted, 1)
    ]


async def run(toolbox: Toolbox, *wanted: tuple[str, str], **rest: Any) -> list[ToolResult]:
    return await toolbox.run(calls(*wanted), run="r", turn=3, **rest)


def outputs(results: list[ToolResult]) -> list[Any]:
    return [result.output for result in results]


async def test_each_kind_of_function_runs_where_it_should() -> None:
    results = await run(
        box(add, upper, where),
        ("add", '{"a": 1}'),
        ("upper", '{"text": "x"}'),
        ("where", "{}"),
        ("add", '{"a":2,"b":2}'),
    )
    assert outputs(results) == ["2", "X False", "r call_3 3", "4"]
    assert results[0].item == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": "2",
    }
    assert all(result.executed and not result.failed for result in results)


def test_inline_tools_need_no_event_loop_task() -> None:
    toolbox = box(add, divide, nap)
    wanted = calls(("add", '{"a": 1}'), ("divide", '{"a": 0}'), ("add", "{"))
    assert toolbox.instant(wanted)
    assert not toolbox.instant(calls(("add", '{"a": 1}'), ("nap", '{"seconds": 1}')))
    assert not toolbox.instant(calls(("unknown", "")))

    async def main() -> list[ToolResult]:
        await trio.lowlevel.checkpoint()
        with trio.testing.assert_no_checkpoints():
            return toolbox.run_nowait(wanted, run="r", turn=1)

    results = trio.run(main)
    assert outputs(results)[:2] == ["2", "error: ZeroDivisionError: division by zero"]
    assert [(result.executed, result.failed) for result in results] == [
        (True, False),
        (True, True),
        (False, True),
    ]


async def test_calls_of_one_turn_run_at_once_and_answer_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    started = trio.current_time()
    results = await run(box(nap), *(("nap", f'{{"seconds": {seconds}}}') for seconds in (3, 1, 2)))
    assert trio.current_time() - started == pytest.approx(3)
    assert outputs(results) == ["slept 3", "slept 1", "slept 2"]
    assert [round(result.seconds) for result in results] == [3, 1, 2]


async def test_concurrency_is_bounded_per_turn_and_per_tool(autojump_clock: trio.testing.MockClock) -> None:
    four = [("nap", '{"seconds": 1}')] * 4
    started = trio.current_time()
    await run(box(nap, concurrency=2), *four)
    assert trio.current_time() - started == pytest.approx(2)

    @tool(name="nap", concurrency=1)
    async def slow(seconds: float) -> str:
        await trio.sleep(seconds)
        return "done"

    started = trio.current_time()
    results = await run(box(slow, timeout=1.5), *four)
    assert trio.current_time() - started == pytest.approx(4)
    assert outputs(results) == ["done"] * 4, "the wait for its turn must not count against a call's timeout"


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("nope", "{}", "error: unknown tool 'nope'; the tools are: add, nap, fail"),
        ("add", '{"a": "x"}', "error: invalid arguments for add: Expected `int`, got `str` - at `$.a`"),
        ("add", '{"a": 1, "c": 2}', "error: invalid arguments for add: Object contains unknown field `c`"),
        ("add", "{}", "error: invalid arguments for add: Object missing required field `a`"),
        ("add", "{", "error: invalid arguments for add: Input data was truncated"),
        ("add", "[" * 100_000, "error: invalid arguments for add: "),
    ],
    ids=["unknown", "type", "extra", "missing", "truncated", "deep"],
)
async def test_a_call_that_cannot_be_made_is_explained(name: str, arguments: str, text: str) -> None:
    @tool
    def fail() -> None: ...

    (result,) = await run(box(add, nap, fail), (name, arguments))
    assert str(result.output).startswith(text)
    assert (result.executed, result.failed) == (False, True)


async def test_without_tools_an_unknown_one_is_still_explained() -> None:
    assert outputs(await run(box(), ("x", ""))) == ["error: unknown tool 'x'; the tools are: none"]


async def test_an_exception_is_told_to_the_model_and_the_details_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @tool
    def fail(text: str) -> str:
        raise ValueError(f"no {text}")

    @tool
    async def grouped() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(missing)
            await trio.sleep(60)
        return ""

    async def missing() -> None:
        await trio.lowlevel.checkpoint()
        raise FileNotFoundError("a.txt")

    @tool
    def odd() -> object:
        return object()

    with caplog.at_level(logging.DEBUG, logger="warmline.tools"):
        results = await run(
            box(fail, grouped, odd), ("fail", '{"text": "luck"}'), ("grouped", ""), ("odd", "")
        )
    assert outputs(results) == [
        "error: ValueError: no luck",
        "error: FileNotFoundError: a.txt",
        "error: TypeError: object has no JSON form; return a str, or something JSON can hold",
    ]
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert {record.exc_info[0] for record in caplog.records if record.exc_info} == {
        ValueError,
        FileNotFoundError,
        TypeError,
    }


async def test_a_long_error_is_cut_like_any_output() -> None:
    @tool
    def fail() -> str:
        raise ValueError("x" * 1000)

    (result,) = await run(box(fail, output_limit=30), ("fail", ""))
    assert result.output == "error: ValueError: xxxxxxxxxxx\n[cut: the first 30 of 1019 bytes]"


async def test_an_async_tool_is_stopped_at_its_timeout(autojump_clock: trio.testing.MockClock) -> None:
    @tool(timeout=float("inf"))
    async def patient() -> str:
        await trio.sleep(100)
        return "at last"

    @tool(timeout=2)
    async def strict() -> str:
        with trio.fail_after(1):
            await trio.sleep(100)
        return ""

    results = await run(
        box(nap, patient, strict, timeout=5), ("nap", '{"seconds": 6}'), ("patient", ""), ("strict", "")
    )
    assert outputs(results) == ["error: nap timed out after 5 s", "at last", "error: TooSlowError"]
    assert [(result.executed, result.failed) for result in results] == [
        (True, True),
        (True, False),
        (True, True),
    ]


async def test_a_thread_is_left_behind_at_its_timeout() -> None:
    release = threading.Event()
    thread_limiter().total_tokens = 1

    @tool(timeout=0.01)
    def stuck() -> str:
        release.wait(10)
        return "too late"

    try:
        (result,) = await run(box(stuck), ("stuck", ""))
        assert result.output == (
            "error: stuck timed out after 0.01 s; it could not be stopped and may still be at work"
        )
        assert thread_limiter().borrowed_tokens == 1, "its place must not be given away while it works"
    finally:
        release.set()
    async with thread_limiter():
        pass  # it has given back the only place


async def test_tools_do_not_use_up_the_threads_that_name_lookups_need() -> None:
    assert thread_limiter() is thread_limiter()
    assert thread_limiter() is not trio.to_thread.current_default_thread_limiter()
    await trio.lowlevel.checkpoint()


async def test_a_plain_wrapper_around_an_async_function_is_not_silently_dropped() -> None:
    def logged(function: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Awaitable[str]:
            return function(*args, **kwargs)

        return wrapper

    async def fetch(url: str) -> str:
        await trio.lowlevel.checkpoint()
        return url

    (result,) = await run(box(tool(logged(fetch))), ("fetch", '{"url": "u"}'))
    assert "appears to be asynchronous" in str(result.output)
    (result,) = await run(box(tool(inline=True)(logged(fetch))), ("fetch", '{"url": "u"}'))
    assert result.output == (
        "error: TypeError: an inline tool returned a coroutine: make it `async def`, and not inline"
    )


@pytest.mark.parametrize("company", [0, 2])
async def test_a_fatal_error_ends_the_run_as_itself(
    company: int, autojump_clock: trio.testing.MockClock
) -> None:
    class Revoked(Exception):
        pass

    @tool(fatal=(Revoked,))
    async def fetch(wrapped: bool = False) -> str:
        await trio.sleep(1)
        raise Revoked("key")

    with pytest.raises(Revoked, match="key"):
        await run(box(fetch, nap), ("fetch", ""), *[("nap", '{"seconds": 50}')] * company)
    assert trio.current_time() < 50

    @tool(inline=True, fatal=(Exception,))
    def broken() -> str:
        raise Revoked("now")

    with pytest.raises(Revoked, match="now"):
        box(broken).run_nowait(calls(("broken", "")), run="r", turn=1)
    (result,) = box(broken).run_nowait(calls(("broken", '{"x": 1}')), run="r", turn=1)
    assert result.failed, "bad arguments are the model's fault and never fatal"


async def test_cancellation_is_never_an_output(autojump_clock: trio.testing.MockClock) -> None:
    stopped = []

    @tool
    async def work(n: int) -> str:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(n)

    for wanted in ([1], [1, 2]):
        with trio.move_on_after(1) as scope:
            await run(box(work, timeout=10), *(("work", f'{{"n": {n}}}') for n in wanted))
        assert scope.cancelled_caught
    assert sorted(stopped) == [1, 1, 2]


async def test_cancelling_does_not_wait_for_a_thread() -> None:
    release = threading.Event()
    thread_limiter().total_tokens = 1

    @tool
    def stuck() -> str:
        release.wait(10)
        return "too late"

    began = time.monotonic()
    try:
        with trio.move_on_after(0.01) as scope:
            await run(box(stuck), ("stuck", ""))
        assert scope.cancelled_caught
        assert time.monotonic() - began < 5
    finally:
        release.set()
    async with thread_limiter():
        pass  # it has given back the only place


async def test_the_caller_is_told_in_its_own_task(autojump_clock: trio.testing.MockClock) -> None:
    told: list[RunEvent] = []
    task = trio.lowlevel.current_task()

    async def on_event(event: RunEvent) -> None:
        await trio.lowlevel.checkpoint()
        assert trio.lowlevel.current_task() is task
        told.append(event)

    results = await run(
        box(nap), ("nap", '{"seconds": 2}'), ("nap", '{"seconds": 1}'), ("nap", "{"), on_event=on_event
    )
    assert [result.failed for result in results] == [False, False, True]
    assert [(event.type.removeprefix("warmline.tool_"), event.payload["call_id"]) for event in told] == [
        ("started", "call_1"),
        ("started", "call_2"),
        ("started", "call_3"),
        ("finished", "call_3"),
        ("finished", "call_2"),
        ("finished", "call_1"),
    ]
    first, last = told[0], told[-1]
    assert isinstance(first, ToolStarted)
    assert first.payload == {
        "type": "warmline.tool_started",
        "turn": 3,
        "call_id": "call_1",
        "name": "nap",
        "arguments": '{"seconds": 2}',
    }
    assert isinstance(last, ToolFinished)
    assert last.payload == {
        "type": "warmline.tool_finished",
        "turn": 3,
        "call_id": "call_1",
        "name": "nap",
        "output": "slept 2",
        "failed": False,
        "seconds": pytest.approx(2),
    }


@pytest.mark.parametrize("fails_at", ["warmline.tool_started", "warmline.tool_finished"])
async def test_a_handler_that_fails_ends_the_calls_with_its_own_error(
    fails_at: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def on_event(event: RunEvent) -> None:
        await trio.lowlevel.checkpoint()
        if event.type == fails_at:
            raise BrokenPipeError(fails_at)

    with pytest.raises(BrokenPipeError, match=fails_at):
        await run(box(nap), ("nap", '{"seconds": 1}'), ("nap", '{"seconds": 90}'), on_event=on_event)
    assert trio.current_time() < 90


async def test_every_path_is_a_checkpoint() -> None:
    toolbox = box(add, where)
    for wanted in ([("add", '{"a": 1}')], [("add", "{")], [("where", "")], [("add", '{"a": 1}')] * 2):
        with trio.testing.assert_checkpoints():
            await run(toolbox, *wanted)

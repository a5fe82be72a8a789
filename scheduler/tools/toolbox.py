"""Run the calls of one turn, and turn everything that can go wrong with them into something the model can read.

A call never raises for its own failure: a bad argument, an unknown name, an exception, a timeout each become its
output, because the model can often do better on the next turn, and because the server refuses a continuation
that leaves a call unanswered. What is not the call's failure passes through: cancellation, `KeyboardInterrupt`, a
tool's `fatal` exceptions, and errors of the caller's own event handler.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import CoroutineType
from typing import Any

import trio
from attrs import field, frozen

from scheduler.tools.context import ToolContext
from scheduler.tools.definition import Tool
from scheduler.tools.events import RunEvent, ToolFinished, ToolStarted
from scheduler.tools.keeper import Keeper
from scheduler.tools.output import Output, describe_failure, present
from scheduler.turns import FunctionCall

OnRunEvent = Callable[[RunEvent], Awaitable[None]]

_log = logging.getLogger("warmline.tools")

_threads: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("warmline tool threads")


def thread_limiter() -> trio.CapacityLimiter:
    """Return what bounds the worker threads of tools in this `trio.run`: 64, or set its `total_tokens`.

    Not trio's default limiter (40): name lookups for new connections wait there, behind no slow tool.
    """
    try:
        return _threads.get()
    except LookupError:
        _threads.set(limiter := trio.CapacityLimiter(64))
        return limiter


@frozen(kw_only=True)
class ToolResult:
    """One answered call. `executed`: its function was called; `failed`: the model reads an error."""

    call: FunctionCall
    output: Output
    executed: bool = True
    failed: bool = False
    seconds: float = 0.0

    @property
    def item(self) -> dict[str, Any]:
        """The input item that answers the call."""
        return {"type": "function_call_output", "call_id": self.call.call_id, "output": self.output}


class _CallFailed(Exception):
    """Carries the text for the model from where a call failed to where its result is made."""

    def __init__(self, text: str, *, executed: bool = True) -> None:
        self.text, self.executed = text, executed
        super().__init__(text)


@frozen(kw_only=True)
class Toolbox:
    """The tools of one agent, by name, with the limits that hold for each call.

    `timeout`: seconds, for tools without their own; `concurrency`: calls of one turn that run at once;
    `output_limit`: bytes of text a call may answer with.
    """

    tools: Mapping[str, Tool[..., Any]]
    timeout: float = math.inf
    concurrency: int = 16
    output_limit: int = 256 * 1024
    _inline: frozenset[str] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(
            self,
            "_inline",
            # A tool that must not run twice is announced to a keeper first, and that takes a while.
            frozenset(name for name, tool in self.tools.items() if tool.inline and tool.repeatable),
        )

    def instant(self, calls: Sequence[FunctionCall]) -> bool:
        """Tell whether none of the calls can wait for anything, so that `run_nowait` will do."""
        return all(call.name in self._inline for call in calls)

    def run_nowait(self, calls: Sequence[FunctionCall], *, run: str, turn: int) -> list[ToolResult]:
        """Run calls to inline tools only, one after the other: no task, no thread, no trip through the event loop."""
        results = []
        for call in calls:
            started = trio.current_time()
            try:
                tool, arguments = self._prepare(call, run, turn)
                output = self._call_inline(tool, call, arguments)
            except _CallFailed as failure:
                results.append(self._failed(call, failure, trio.current_time() - started))
            else:
                results.append(ToolResult(call=call, output=output, seconds=trio.current_time() - started))
        return results

    async def run(
        self,
        calls: Sequence[FunctionCall],
        *,
        run: str,
        turn: int,
        on_event: OnRunEvent | None = None,
        keeper: Keeper | None = None,
    ) -> list[ToolResult]:
        """Run the calls of one turn concurrently; the results come in the order of the calls.

        `on_event` is awaited in the caller's task. `keeper` is told of each result as soon as there is one.
        Cancelling cancels the tools; a tool in a thread is left behind.
        """
        if len(calls) == 1 and on_event is None:
            # The usual turn. A nursery and a limiter would cost more than the rest of the loop.
            return [await self._answer(calls[0], run, turn, keeper)]
        results: dict[int, ToolResult] = {}
        send, receive = trio.open_memory_channel[ToolResult](len(calls))
        limiter = trio.CapacityLimiter(self.concurrency)
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def answer(index: int, call: FunctionCall) -> None:
                # Only a tool's `fatal` error, or the keeper's, comes out of `_answer`. It is carried past the nursery
                # by hand: one failure shall reach the caller as itself, not in a group.
                async with limiter:
                    try:
                        results[index] = await self._answer(call, run, turn, keeper)
                    except Exception as exc:
                        failures.append(exc)
                        nursery.cancel_scope.cancel()
                        return
                send.send_nowait(results[index])
                if len(results) == len(calls):
                    send.close()

            for index, call in enumerate(calls):
                nursery.start_soon(answer, index, call)
            if on_event is not None:
                try:
                    await _tell(calls, receive, on_event, turn)
                except Exception as exc:
                    failures.append(exc)
                    nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return [results[index] for index in range(len(calls))]

    async def _answer(self, call: FunctionCall, run: str, turn: int, keeper: Keeper | None) -> ToolResult:
        if keeper is None:
            return await self._run(call, run, turn)
        tool = self.tools.get(call.name)
        if tool is not None and not tool.repeatable:
            await keeper.call_begins(call)
        result = await self._run(call, run, turn)
        await keeper.calls_ended([result])
        return result

    async def _run(self, call: FunctionCall, run: str, turn: int) -> ToolResult:
        started = trio.current_time()
        try:
            tool, arguments = self._prepare(call, run, turn)
            output = await self._call(tool, call, arguments)
        except _CallFailed as failure:
            await trio.lowlevel.checkpoint()
            return self._failed(call, failure, trio.current_time() - started)
        return ToolResult(call=call, output=output, seconds=trio.current_time() - started)

    def _failed(self, call: FunctionCall, failure: _CallFailed, seconds: float) -> ToolResult:
        output = present(f"error: {failure.text}", self.output_limit)
        return ToolResult(call=call, output=output, executed=failure.executed, failed=True, seconds=seconds)

    def _prepare(self, call: FunctionCall, run: str, turn: int) -> tuple[Tool[..., Any], dict[str, Any]]:
        tool = self.tools.get(call.name)
        if tool is None:
            known = ", ".join(self.tools) or "none"
            raise _CallFailed(f"unknown tool {call.name!r}; the tools are: {known}", executed=False)
        try:
            arguments = tool.decode(call.arguments)
        except Exception as exc:
            # Any exception: the user's own constructors run while arguments are decoded.
            _log.debug("invalid arguments for %s (%s)", tool.name, call.call_id, exc_info=exc)
            raise _CallFailed(f"invalid arguments for {tool.name}: {exc}", executed=False) from None
        if tool.context is not None:
            arguments[tool.context] = ToolContext(run=run, call_id=call.call_id, turn=turn)
        return tool, arguments

    def _call_inline(self, tool: Tool[..., Any], call: FunctionCall, arguments: dict[str, Any]) -> Output:
        try:
            value = tool.function(**arguments)
            if isinstance(value, CoroutineType):
                value.close()
                raise TypeError("an inline tool returned a coroutine: make it `async def`, and not inline")
            return present(value, self.output_limit)
        except Exception as exc:
            raise _readable(tool, call, exc) from None

    async def _call(self, tool: Tool[..., Any], call: FunctionCall, arguments: dict[str, Any]) -> Output:
        if tool.inline:
            await trio.lowlevel.checkpoint()
            return self._call_inline(tool, call, arguments)
        try:
            limiter = tool.limiter
            if limiter is None:
                return present(await self._timed(tool, arguments), self.output_limit)
            # The wait for its turn with a busy tool is not the call's own time.
            async with limiter:
                return present(await self._timed(tool, arguments), self.output_limit)
        except Exception as exc:
            raise _readable(tool, call, exc) from None

    async def _timed(self, tool: Tool[..., Any], arguments: dict[str, Any]) -> Any:
        timeout = self.timeout if tool.timeout is None else tool.timeout
        if timeout == math.inf:
            return await _start(tool, arguments)
        with trio.move_on_after(timeout):
            return await _start(tool, arguments)
        left = "" if tool.is_async else "; it could not be stopped and may still be at work"
        raise _CallFailed(f"{tool.name} timed out after {timeout:g} s{left}")


async def _start(tool: Tool[..., Any], arguments: dict[str, Any]) -> Any:
    if tool.is_async:
        return await tool.function(**arguments)
    # A thread cannot be stopped. Waiting for it would make timeouts and Ctrl-C wait for the slowest tool, so it is
    # abandoned: its result is dropped, and its place in the limiter is only given back when it ends.
    return await trio.to_thread.run_sync(
        partial(tool.function, **arguments), abandon_on_cancel=True, limiter=thread_limiter()
    )


async def _tell(
    calls: Sequence[FunctionCall],
    finished: trio.MemoryReceiveChannel[ToolResult],
    on_event: OnRunEvent,
    turn: int,
) -> None:
    """Tell the caller, in the caller's task: all calls as started, then each as it finishes."""
    for call in calls:
        await on_event(ToolStarted(call=call, turn=turn))
    async for done in finished:
        event = ToolFinished(
            call=done.call, turn=turn, output=done.output, failed=done.failed, seconds=done.seconds
        )
        await on_event(event)


def _readable(tool: Tool[..., Any], call: FunctionCall, exc: Exception) -> Exception:
    """Make of a tool's exception what `_answer` shows to the model, unless it is to end the run."""
    if isinstance(exc, _CallFailed):
        return exc
    while isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    if isinstance(exc, tool.fatal):
        return exc
    _log.debug("%s failed (%s)", tool.name, call.call_id, exc_info=exc)
    return _CallFailed(describe_failure(exc))

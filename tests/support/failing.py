"""Failures that nobody expects, at every operation of a stream and at every step of a task, one at a time."""

from __future__ import annotations

import inspect
from typing import Any

import trio
from attrs import define, field


class Unexpected(Exception):
    """A bug."""


class Panic(BaseException):
    """A bug in an extension module."""


@define(eq=False)
class FailingStream(trio.abc.HalfCloseableStream):
    """Raises at its `at`th operation, from 1, and works otherwise."""

    stream: Any
    at: int
    error: BaseException
    operations: int = field(default=0, init=False)

    def _count(self) -> None:
        self.operations += 1
        if self.operations == self.at:
            raise self.error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)
        self._count()

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()
        self._count()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = await self.stream.receive_some(max_bytes)
        self._count()
        return data

    async def send_eof(self) -> None:
        await self.stream.send_eof()
        self._count()

    async def aclose(self) -> None:
        self._count()
        await self.stream.aclose()

    @property
    def failed(self) -> bool:
        """It has raised."""
        return self.operations >= self.at


@define(eq=False)
class FailingStep(trio.abc.Instrument):
    """Raises in place of the `at`th step, from 1, of a task and those below it: where it waits, that wait raises.

    Steps within the end of a nursery, and where a lock is already taken, are left alone: nothing can raise there but
    trio itself, whose state would be broken.
    """

    at: int
    error: BaseException
    root: trio.lowlevel.Task | None = None
    steps: int = field(default=0, init=False)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self._below(task) or not _may_fail(task):
            return
        self.steps += 1
        if self.steps == self.at:
            task._next_send_fn, task._next_send = task.coro.throw, self.error

    def _below(self, task: trio.lowlevel.Task | None) -> bool:
        while task is not None and task is not self.root:
            task = None if task.parent_nursery is None else task.parent_nursery.parent_task
        return task is not None

    @property
    def failed(self) -> bool:
        """It has raised."""
        return self.steps >= self.at


_TRIOS_OWN = frozenset({"_nested_child_finished", "acquire", "acquire_on_behalf_of"})


def _may_fail(task: trio.lowlevel.Task) -> bool:
    if inspect.getcoroutinestate(task.coro) == inspect.CORO_CREATED:
        return False
    return _TRIOS_OWN.isdisjoint(frame.f_code.co_name for frame, _ in task.iter_await_frames())

"""The boundary stops every failure but a cancellation and our own stop, also within groups, and logs only so many."""

from __future__ import annotations

import logging

import pytest
import trio

from pool.boundary import BURST, WINDOW, Boundary

log = logging.getLogger("test.boundary")


class Panic(BaseException):
    """What an extension module may raise."""


def boundary() -> Boundary:
    return Boundary("a task", log, (ConnectionError,))


FAILURES = [
    ValueError("x"),
    MemoryError(),
    RecursionError(),
    Panic(),
    ExceptionGroup("", [ValueError("x")]),
    BaseExceptionGroup("", [Panic(), ExceptionGroup("", [KeyError("y"), ConnectionError()])]),
]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
async def test_a_failure_goes_no_further(error: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    guard = boundary()
    with guard:
        raise error
    assert guard.crashes == 1


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), ExceptionGroup("", [ConnectionError(), ConnectionError()])], ids=repr
)
async def test_what_is_expected_is_no_failure(error: Exception) -> None:
    await trio.lowlevel.checkpoint()
    guard = boundary()
    with guard:
        raise error
    assert guard.crashes == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("beside", [None, ValueError("x"), ConnectionError()], ids=repr)
async def test_our_own_stop_passes(kind: type[BaseException], beside: Exception | None) -> None:
    await trio.lowlevel.checkpoint()
    guard = boundary()
    passed: BaseException | None = None
    try:
        with guard:
            raise kind() if beside is None else BaseExceptionGroup("", [beside, kind()])
    except (KeyboardInterrupt, SystemExit, GeneratorExit, BaseExceptionGroup) as error:
        passed = error
    found = passed.exceptions if isinstance(passed, BaseExceptionGroup) else [passed]
    assert [type(one) for one in found] == [kind]
    assert guard.crashes == isinstance(beside, ValueError)


async def test_a_cancellation_passes(autojump_clock: trio.abc.Clock) -> None:
    guard, after = boundary(), False
    with trio.move_on_after(1) as scope:
        with guard:
            await trio.sleep(5)
        after = True
    assert scope.cancelled_caught
    assert not after
    assert guard.crashes == 0


async def test_a_cancellation_passes_beside_a_failure(autojump_clock: trio.abc.Clock) -> None:
    async def fail() -> None:
        try:
            await trio.sleep(5)
        finally:
            raise ValueError("while leaving")

    guard, after = boundary(), False
    with trio.move_on_after(1) as scope:
        with guard:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                nursery.start_soon(trio.sleep, 5)
        after = True
    assert scope.cancelled_caught
    assert not after
    assert guard.crashes == 1


async def test_who_fails_often_fills_no_log(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    guard = boundary()
    for _ in range(10_000):
        with guard:
            raise ValueError
    assert guard.crashes == 10_000
    assert len(caplog.records) == BURST
    await trio.sleep(WINDOW)
    with guard:
        raise ValueError
    assert (
        caplog.records[-1].getMessage()
        == f"a task crashed ({10_000 - BURST} failures before it were not logged)"
    )
    await trio.sleep(WINDOW)
    with guard:
        raise ValueError
    assert caplog.records[-1].getMessage() == "a task crashed"

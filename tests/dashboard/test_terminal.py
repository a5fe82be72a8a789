"""The dashboard as text: what fits, and what comes first."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pool.settings import Lanes
from pool.slots import Hold
from scheduler.dashboard.frame import Frame
from scheduler.dashboard.history import History
from scheduler.dashboard.look import look_at
from scheduler.dashboard.terminal import duration, lines, span, sparkline
from tests.dashboard.stage import silent
from tests.support.world import take, world


def shown(frame: Frame, width: int = 80, **options: Any) -> list[str]:
    """Return the lines as text."""
    return [line.plain for line in lines(frame, width, **options)]


async def crowded() -> Frame:
    """Return a frame with waiters, losses and turns in flight."""
    async with silent(3, lanes=Lanes.multi(in_flight=2, named=3)) as stage, trio.open_nursery() as nursery:
        await stage.lease("a rather long name of a conversation, as people give them to theirs")
        hold = Hold("with a claim")
        (await stage.pool.acquire(hold, holder="with a claim")).release()
        await stage.lease("b", "c", "d", "e")
        stage.wires[0].ended.set()
        await wait_all_tasks_blocked()
        for number in range(12):
            nursery.start_soon(stage.lease, f"waiter {number}")
        await wait_all_tasks_blocked()
        await trio.sleep(3)
        history = History()
        history.add(stage.scheduler.stats(), busy=1, usable=2, waiting=0, now=0.0)
        history.add(stage.scheduler.stats(), busy=1, usable=2, waiting=0, now=5.0)
        frame = stage.frame(history)
        nursery.cancel_scope.cancel()
    return frame


@pytest.mark.parametrize("width", [60, 79, 80, 100, 133, 240])
async def test_no_line_is_too_long(autojump_clock: MockClock, width: int) -> None:
    frame = await crowded()
    text = shown(frame, width)
    assert max(map(len, text)) <= width
    assert any("waiter " in line for line in text)
    assert any("lost: closed by the server" in line for line in text)


async def test_what_is_urgent_comes_first(autojump_clock: MockClock) -> None:
    text = shown(await crowded())
    assert text[0].startswith("warmline silent")
    assert text[1].startswith("! ")
    assert "waiters: all" in " ".join(text[1:4])


async def test_a_wide_terminal_has_two_columns(autojump_clock: MockClock) -> None:
    frame = await crowded()
    assert len(shown(frame, 140)) < len(shown(frame, 80))
    assert any("Who waits for whom" in line and "Losses" in line for line in shown(frame, 140))


async def test_a_pool_that_does_nothing(autojump_clock: MockClock) -> None:
    async with silent(3) as stage:
        text = shown(stage.frame(), notice="no answer, trying again")
    assert text[0].endswith("no answer, trying again")
    assert "No connection is open." in text
    assert not any("Who waits" in line for line in text)


async def test_turns_and_their_reasons(autojump_clock: MockClock) -> None:
    async with world() as there:
        history, conversation = History(), there.scheduler.conversation()
        for number in range(3):
            look = look_at(there.scheduler)
            history.add(look.stats, busy=1, usable=1, waiting=0, now=float(number))
            await take(conversation, "go on")
        from scheduler.dashboard.frame import frame_of

        text = shown(frame_of(look_at(there.scheduler), history, source="b", sources=["a", "b"]), 100)
    assert text[0].startswith("warmline emulator b of 2")
    assert any(line.startswith("hot  its lane remembered it") or "hot  its lane" in line for line in text)
    assert any("default  0 in flight" in line for line in text)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (1e-6, "0 ms"),
        (0.0004, "0.40 ms"),
        (0.0123, "12.3 ms"),
        (0.456, "456 ms"),
        (3.21, "3.21 s"),
        (300.0, "5 min"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1.0, "0.0 s"), (3.14, "3.1 s"), (59.9, "60 s"), (150.0, "2:30 min"), (9000.0, "2.5 h")],
)
def test_spans(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_sparklines() -> None:
    assert sparkline([0.0, None, 7.0]) == "▁ █"
    assert sparkline([0.0]) == "▁"
    assert sparkline([]) == ""

"""Traces to test with: recorded on trio's mock clock, or written line by line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio
import trio.testing

from pool.emulator import EmulatorSettings
from pool.settings import Lanes, PoolSettings
from pool.wire.codec import from_json, to_json
from scheduler.settings import SchedulerSettings
from scheduler.trace import open_trace
from scheduler.trace.records import Header, Line
from scheduler.trace.story import Story
from scheduler.trace.tell import fold
from tests.support.world import World, asking, outputs, take, world

HEADER = Header(id="a", started=1_700_000_000.0, contents=False, software="warmline 0")
Scene = Callable[[World], Awaitable[None]]


def record(
    path: Path,
    scene: Scene,
    *,
    contents: bool = False,
    limit: int = 100_000_000,
    server: EmulatorSettings | None = None,
    lanes: Lanes | None = None,
    pool: PoolSettings | None = None,
    settings: SchedulerSettings | None = None,
    **endpoint: Any,
) -> str:
    """Trace a scene in a world of its own; return the path."""

    async def main() -> None:
        async with world(server=server, lanes=lanes, pool=pool, settings=settings, **endpoint) as w:
            await scene(w)

    with open_trace(path, contents=contents, limit=limit):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return str(path)


def loops(count: int, *, script: Callable[[int], str], apart: float = 0.3, tools: float = 0.25) -> Scene:
    """Return a scene of tool loops that begin one after the other, whose tools take their time."""

    async def scene(w: World) -> None:
        async def one(number: int) -> None:
            await trio.sleep(number * apart)
            conversation = w.scheduler.conversation(name=f"task-{number}")
            request = asking(script(number))
            turn = await take(conversation, f"say {number}", request)
            while turn.calls:
                await trio.sleep(tools)
                turn = await take(conversation, outputs(turn), request)
            conversation.close()

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(one, number)

    return scene


def lines_of(path: str) -> list[dict[str, Any]]:
    """Return all lines of a file, parsed."""
    return [from_json(line) for line in Path(path).read_bytes().splitlines()]


def write(path: Path, *lines: Mapping[str, Any] | bytes, header: Mapping[str, Any] | None = None) -> str:
    """Write a trace by hand."""
    first = HEADER.to_line() if header is None else header
    texts = [line if isinstance(line, bytes) else to_json(line) for line in (first, *lines)]
    path.write_bytes(b"".join(text + b"\n" for text in texts))
    return str(path)


def story(*lines: Line) -> Story:
    """Return what the lines tell."""
    return fold(HEADER, lines)


def turn_lines(
    conv: str,
    number: int,
    at: float,
    *,
    seconds: float = 1.0,
    first: float = 0.5,
    lane: str = "c1/lane-01",
    reason: str = "hot",
    waited: float = 0.0,
    admission: float = 0.0,
    ended: bool = True,
) -> list[dict[str, Any]]:
    """Return the lines of one turn whose create leaves at `at`."""
    kind = "replay" if reason.startswith("replay") else "delta"
    whose = {"lane": lane, "conv": conv}
    lines: list[dict[str, Any]] = []
    if admission:
        lines.append({"at": at - waited, "what": "admitted", "conv": conv, "waited": admission})
    placed = {"kind": kind, "reason": reason, "turn": number, "waited": waited, "saved": 100}
    lines.append({"at": at, "what": "placed", **whose, **placed})
    parent = {"parent": "resp_0"} if kind == "delta" else {}
    sent = {"bytes": 300, "type": "response.create", "items": 1, **parent}
    lines.append({"at": at, "what": "out", **whose, **sent})
    lines.append({"at": at + first, "what": "in", **whose, "bytes": 90, "type": "response.created"})
    if ended:
        usage = {"input_tokens": 10, "cached_tokens": 5, "output_tokens": 3}
        end = {"bytes": 200, "type": "response.completed", "response": "resp_1", "usage": usage}
        lines.append({"at": at + seconds, "what": "in", **whose, **end})
        total = seconds + waited + admission
        lines.append({"at": at + seconds, "what": "turn", **whose, "turn": number, "seconds": total})
    return lines

"""A trace as a schedule for the emulator: its answers again, with their own timing. Pure."""

from __future__ import annotations

from pool.emulator.playback import Answer, Schedule
from scheduler.trace.reader import TraceUnreadable, open_reading
from scheduler.trace.story import Exchange, Story
from scheduler.trace.tell import NOBODY, tell

MOST_CALLS = 128  # in one answer, as the emulator takes it


def schedule_of(path: str) -> Schedule:
    """Return the answers that the trace in a file has seen.

    Raises:
        TraceUnreadable: it is none, or no turn has completed in it.
        OSError: it cannot be read.
    """
    schedule = schedule_in(tell(open_reading(path)))
    if schedule is None:
        raise TraceUnreadable(path, "holds no turn that completed, so there is nothing to play back")
    return schedule


def schedule_in(story: Story) -> Schedule | None:
    """Return the answers of a story; None when there are none."""
    conversations = []
    for one in sorted(story.conversations.values(), key=lambda one: one.start):
        # A part of a conversation whose beginning was rotated away would play at the wrong turn of a client's.
        if one.name == NOBODY or not one.turns or one.turns[0].number != 1:
            continue
        answers = tuple(_answer(turn.last) for turn in one.turns if _ended(turn.last))
        if answers:
            conversations.append(answers)
    return Schedule(tuple(conversations)) if conversations else None


def _ended(exchange: Exchange | None) -> bool:
    return exchange is not None and exchange.status in ("completed", "incomplete") and bool(exchange.events)


def _answer(exchange: Exchange | None) -> Answer:
    assert exchange is not None
    first = exchange.events[0]
    calls = min(len(exchange.calls), MOST_CALLS)
    return Answer(
        first=first - exchange.sent,
        offsets=tuple(round(at - first, 6) for at in exchange.events),
        calls=calls,
        output_tokens=exchange.usage.get("output_tokens") or None,
        deltas=max(exchange.deltas, calls) or None,
        # What calls said is decided by their schemas; only an answer can be made as long as it was.
        text_bytes=None if calls else exchange.chars or None,
    )

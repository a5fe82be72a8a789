"""The conversations of a trace, a line each. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scheduler.trace.story import Conversation, Story
from scheduler.trace.view.words import WIDTH, cut

NAME = 26  # columns


def _replays(conversation: Conversation) -> int:
    return sum(turn.kind == "replay" for turn in conversation.turns)


def _retries(conversation: Conversation) -> int:
    return sum(len(turn.retries) for turn in conversation.turns)


SORTS: dict[str, Callable[[Conversation], Any]] = {
    "start": lambda one: one.start,
    "name": lambda one: one.name,
    "turns": lambda one: -len(one.turns),
    "replays": lambda one: -_replays(one),
    "retries": lambda one: -_retries(one),
    "seconds": lambda one: -one.seconds,
    "slowest": lambda one: -one.slowest,
}


def listed(story: Story, *, sort: str = "start", most: int | None = None) -> list[Conversation]:
    """Return the conversations in order; the `most` first of them."""
    return sorted(story.conversations.values(), key=SORTS[sort])[:most]


def rows(conversations: list[Conversation]) -> list[str]:
    """Return the table."""
    head = f"{'conversation':<{NAME}}{'start':>9}{'turns':>7}{'replays':>9}{'retries':>9}"
    lines = [f"{head}{'slowest':>10}{'seconds':>10}"]
    for one in conversations:
        state = "!" if any(turn.error for turn in one.turns) else ""
        lines.append(
            f"{cut(one.name, NAME - 2):<{NAME - 1}}{state:1}{one.start:9.2f}{len(one.turns):7}"
            f"{_replays(one):9}{_retries(one):9}{one.slowest:10.3f}{one.seconds:10.2f}"
        )
    assert all(len(line) <= WIDTH for line in lines[:1])
    return lines


def summary(conversation: Conversation) -> dict[str, Any]:
    """Return a conversation as JSON."""
    return {
        "name": conversation.name,
        "tenant": conversation.tenant,
        "start": round(conversation.start, 6),
        "seconds": round(conversation.seconds, 6),
        "turns": len(conversation.turns),
        "replays": _replays(conversation),
        "retries": _retries(conversation),
        "moves": conversation.moves,
        "failed": any(turn.error for turn in conversation.turns),
        "slowest_turn": round(conversation.slowest, 6),
        "lanes": conversation.lanes,
    }

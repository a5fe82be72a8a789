"""How times, sizes and reasons are written for people. Pure."""

from __future__ import annotations

import datetime

from scheduler.fleet.report import count, size
from scheduler.trace.story import Story

WIDTH = 80
NUMBER = 9  # columns of a moment

# Why a turn was not a delta: what to make of each reason.
WHY = {
    "replay:new": "the first turn",
    "replay:stolen": "lanes were scarce, and another conversation was given its lane",
    "replay:rotated": "its connection was replaced before its cap",
    "replay:expired": "its connection reached its cap",
    "replay:lost": "its connection broke",
    "replay:idle": "its connection was idle for too long",
    "replay:forked": "the first turn of a fork, elsewhere than its parent or too late",
    "replay:moved": "its lane was busy, or its connection full",
    "replay:model": "the endpoint serves one model a connection, and another was wanted",
    "replay:failed": "the turn before was refused or abandoned",
    "replay:closed": "the conversation had been closed",
    "replay:forgotten": "the server said that it does not know the parent",
    "replay:http": "the turn before went over HTTP, where nothing is remembered",
    "replay:compacted": "the conversation had been compacted",
    "replay:rewritten": "its history had been rewritten",
    "replay:resumed": "it began with a history",
    "http:setting": "the settings say so",
    "http:oversize": "no socket takes a message of this size",
    "http:fallback": "no socket could be opened",
    "http:short": "a socket would not have been worth its dial",
}


def why(reason: str) -> str:
    """Say what a reason means; a reason of later versions speaks for itself."""
    return WHY.get(reason, reason.partition(":")[2] or reason)


def seconds(value: float | None) -> str:
    """Return a time to read: 3.2 ms, 1.25 s, 4 min 05 s."""
    if value is None:
        return "-"
    if value < 0.9995:
        return f"{value * 1000:.1f} ms" if value < 0.0995 else f"{value * 1000:.0f} ms"
    if value < 99.95:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02} s"


def moment(at: float) -> str:
    """Return a moment of the trace, in its column."""
    return f"{at:{NUMBER}.3f}"


def cut(text: str, width: int) -> str:
    """Return the text, or as much of it as fits, on one line and without control characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return e.g. `1 turn`, `2 turns`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str:
    """Return e.g. `97 %`."""
    return f"{100 * part / whole:.0f} %" if whole else "-"


def headline(story: Story) -> list[str]:
    """Say in a few lines what the trace holds."""
    began = datetime.datetime.fromtimestamp(story.header.started).strftime("%Y-%m-%d %H:%M:%S")
    turns = story.turns
    deltas = sum(turn.kind == "delta" for turn in turns)
    sockets = [one for one in story.connections.values() if one.dial is not None]
    sent = sum(exchange.size for exchange in story.exchanges)
    lines = [
        f"{began}, {seconds(story.seconds)}: {plural(len(story.conversations), 'conversation')}, "
        f"{plural(len(turns), 'turn')} ({share(deltas, len(turns))} deltas),",
        f"{plural(len(sockets), 'connection')} ({sum(one.lost for one in sockets)} lost, "
        f"{plural(len(story.dials_failed), 'dial')} failed), {size(sent)} sent; "
        f"contents {'recorded' if story.header.contents else 'left out'}",
    ]
    if story.header.part > 1:
        lines.append("The beginning was rotated away: raise --trace-limit to keep more.")
    if story.unrecorded:
        lines.append(f"{plural(story.unrecorded, 'line')} missing or unreadable.")
    return lines

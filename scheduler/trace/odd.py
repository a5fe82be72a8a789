"""Find the slow and the odd in a trace, with a sentence each. Pure.

What counts as odd is relative where it can be (a turn beyond the 99th percentile that is also twice the median), and
absolute where people wait: a second for admission or for a lane, two seconds of silence in the middle of a response.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from scheduler.fleet.report import size
from scheduler.trace.story import Connection, Exchange, Story, Turn, cause_of
from scheduler.trace.view.words import plural, seconds, why

FEW = 20  # turns; of fewer there is no percentile worth the name
LONG_WAIT = 1.0  # s, for admission or for a lane
SILENCE = 2.0  # s between two events
UNUSUAL = 5.0  # times the median silence
USUAL = ("", "replay:new", "http:setting", "http:short")  # reasons to send everything that ask for no remedy
NAMED = 5  # neighbours that are named


@frozen(kw_only=True)
class Finding:
    """Something odd. `weight` orders the findings of a kind: seconds, mostly."""

    kind: str
    at: float
    text: str
    conv: str = ""
    conn: str = ""
    weight: float = 0.0


def odd(story: Story) -> list[Finding]:
    """Return the findings, by kind in the order of how much they matter, the heaviest of a kind first."""
    turns = story.turns
    found = [
        *_lost(story),
        *_failed(turns),
        *_slow(turns),
        *_retried(turns),
        *_silent(story.exchanges),
        *_replayed(turns),
        *_waited(turns),
        *_dials(story),
        *_strays(story.connections.values()),
        *_moved(story),
        *_unfinished(story),
    ]
    order = {kind: place for place, kind in enumerate(dict.fromkeys(one.kind for one in found))}
    return sorted(found, key=lambda one: (order[one.kind], -one.weight, one.at))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of the values do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _name(turn: Turn) -> str:
    return f"turn {turn.number} of {turn.conv}"


def _lost(story: Story) -> Iterator[Finding]:
    for connection in story.connections.values():
        end = connection.end
        if end is None or not connection.lost:
            continue
        cut = [name for name in end.get("cut", ()) if name]
        near = _neighbours(story, connection, float(end["at"]), set(cut))
        parts = [f"{connection.name} was lost after {seconds(float(end.get('age', 0.0)))} ({cause_of(end)})"]
        parts.append(f"in mid-turn: {_some(cut)}" if cut else "no turn was in flight on it")
        if near:
            parts.append(f"also at home there: {_some(near)}")
        yield Finding(
            kind="lost connection",
            at=float(end["at"]),
            text="; ".join(parts),
            conn=connection.name,
            weight=len(cut) + len(near) / 1000,
        )


def _neighbours(story: Story, connection: Connection, at: float, cut: set[str]) -> list[str]:
    """Return who had spoken on the connection, was not in flight when it died, and went on later."""
    spoke = dict.fromkeys(one.conv for one in connection.exchanges if one.sent < at and one.conv not in cut)
    names = [story.conversations[name] for name in spoke]
    return [one.name for one in names if one.start + one.seconds > at]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _failed(turns: Iterable[Turn]) -> Iterator[Finding]:
    for turn in turns:
        if turn.error is not None:
            yield Finding(
                kind="failed turn", at=turn.start, conv=turn.conv, text=f"{_name(turn)} failed: {turn.error}"
            )


def _slow(turns: Sequence[Turn]) -> Iterator[Finding]:
    times = [turn.seconds for turn in turns if turn.seconds is not None]
    if len(times) < FEW:
        return
    p99, median = percentile(times, 0.99), percentile(times, 0.5)
    for turn in turns:
        took = turn.seconds
        if took is not None and took >= p99 and took > 2 * median:
            yield Finding(
                kind="slow turn",
                at=turn.start,
                conv=turn.conv,
                conn="" if turn.last is None else turn.last.conn,
                weight=took,
                text=f"{_name(turn)} took {seconds(took)} (median {seconds(median)}): {_where(turn)}",
            )


def _where(turn: Turn) -> str:
    """Say where most of a turn's time went."""
    last = turn.last
    spent = {"admission": turn.admission, "waiting for a lane": turn.waited}
    if last is not None and last.first is not None:
        spent["waiting for the first event"] = last.first
        spent["its output"] = (last.seconds or 0.0) - last.first
    if len(turn.tries) > 1 and last is not None:
        spent["tries that failed"] = last.sent - turn.tries[0].sent
    place, most = max(spent.items(), key=lambda item: item[1])
    return f"{seconds(most)} of it {place}" if most else "with nothing recorded of it"


def _retried(turns: Iterable[Turn]) -> Iterator[Finding]:
    for turn in turns:
        if turn.retries:
            reasons = ", ".join(dict.fromkeys(str(line.get("reason")) for line in turn.retries))
            again = plural(len(turn.retries), "more try", "more tries")
            yield Finding(
                kind="retry",
                at=turn.start,
                conv=turn.conv,
                weight=len(turn.retries),
                text=f"{_name(turn)} took {again}: {reasons}",
            )


def _silent(exchanges: Sequence[Exchange]) -> Iterator[Finding]:
    pauses = [one.pause for one in exchanges if len(one.events) > 1]
    usual = percentile(pauses, 0.5)
    for one in exchanges:
        if one.pause >= SILENCE and one.pause >= UNUSUAL * usual:
            yield Finding(
                kind="silence",
                at=one.sent,
                conv=one.conv,
                conn=one.conn,
                weight=one.pause,
                text=f"{one.conv or one.lane}: {seconds(one.pause)} without an event in the middle of a response "
                f"on {one.lane} (usually at most {seconds(usual)})",
            )


def _replayed(turns: Iterable[Turn]) -> Iterator[Finding]:
    for turn in turns:
        if turn.kind == "replay" and turn.reason not in USUAL and turn.last is not None:
            text = f"{_name(turn)} sent {size(turn.last.size)} instead of a delta ({turn.reason}): {why(turn.reason)}"
            yield Finding(
                kind="replay",
                at=turn.start,
                conv=turn.conv,
                conn=turn.last.conn,
                weight=turn.last.size,
                text=text,
            )


def _waited(turns: Iterable[Turn]) -> Iterator[Finding]:
    for turn in turns:
        for kind, waited, what in (
            ("admission wait", turn.admission, "for its slot: a limit, a budget or fairness held it back"),
            ("lane wait", turn.waited, "for a lane: all were busy, or a connection had to be dialled first"),
        ):
            if waited >= LONG_WAIT:
                text = f"{_name(turn)} waited {seconds(waited)} {what}"
                yield Finding(kind=kind, at=turn.start, conv=turn.conv, weight=waited, text=text)


def _dials(story: Story) -> Iterator[Finding]:
    for line in story.dials_failed:
        took = float(line.get("seconds", 0.0))
        text = (
            f"the dial of {line['conn']} failed after {seconds(took)}: {line.get('error', 'no reason given')}"
        )
        yield Finding(
            kind="failed dial", at=float(line["at"]), conn=str(line["conn"]), weight=took, text=text
        )


def _strays(connections: Iterable[Connection]) -> Iterator[Finding]:
    for one in connections:
        if one.strays:
            kinds = ", ".join(dict.fromkeys(str(line["type"]) for line in one.strays))
            text = f"{plural(len(one.strays), 'event')} for nobody on {one.name}: {kinds}"
            at = float(one.strays[0]["at"])
            yield Finding(kind="stray", at=at, conn=one.name, weight=len(one.strays), text=text)


def _moved(story: Story) -> Iterator[Finding]:
    for one in story.conversations.values():
        if one.moves:
            moves = plural(one.moves, "time")
            text = f"{one.name} was moved {moves} between turns ({' to '.join(one.lanes)})"
            yield Finding(kind="moved", at=one.start, conv=one.name, weight=one.moves, text=text)


def _unfinished(story: Story) -> Iterator[Finding]:
    for one in story.exchanges:
        if one.status == "open":
            text = f"{one.conv or one.lane}: what was sent on {one.lane} has no end in this trace"
            weight = story.seconds - one.sent
            yield Finding(
                kind="unfinished", at=one.sent, conv=one.conv, conn=one.conn, weight=weight, text=text
            )

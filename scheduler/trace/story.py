"""What a trace tells: exchanges, turns, conversations and connections. Values only; `tell` makes them."""

from __future__ import annotations

from array import array
from typing import Any

from attrs import define, field

from scheduler.trace.records import Header, Line


@define(eq=False)
class Exchange:
    """One create, and what came for it. Times are seconds from the start of the trace."""

    lane: str
    conv: str
    sent: float
    size: int
    items: int = 0
    parent: str | None = None
    reason: str = ""  # of its placement
    saved: int = 0  # bytes, by not sending the whole transcript
    warm_up: bool = False
    events: array[float] = field(factory=lambda: array("d"))  # when each came
    received: int = 0  # bytes
    deltas: int = 0
    chars: int = 0  # in the deltas
    first_output: float | None = None  # when the first event beyond "it has started" came
    ended: float | None = None
    status: str = "open"  # completed, incomplete, failed, refused, lost
    response: str | None = None
    model: str | None = None
    usage: dict[str, int] = field(factory=dict)
    code: str | None = None  # of an error
    calls: list[str] = field(factory=list)  # tools called

    @property
    def conn(self) -> str:
        """The connection."""
        return self.lane.partition("/")[0]

    @property
    def first(self) -> float | None:
        """Seconds from the create to the first event."""
        return self.events[0] - self.sent if self.events else None

    @property
    def seconds(self) -> float | None:
        """Seconds from the create to the end."""
        return None if self.ended is None else self.ended - self.sent

    @property
    def pause(self) -> float:
        """The longest silence after the first event, in seconds."""
        later = zip(self.events, self.events[1:], strict=False)
        return max((after - before for before, after in later), default=0.0)


@define(eq=False)
class Turn:
    """One turn of a conversation: its tries, and how it ended."""

    conv: str
    number: int
    start: float  # when it was asked for, waits included
    kind: str = ""
    reason: str = ""
    lane: str = ""
    model: str = ""
    admission: float = 0.0  # s waited for its slot
    waited: float = 0.0  # s, for its lane
    tries: list[Exchange] = field(factory=list)
    retries: list[Line] = field(factory=list)
    error: str | None = None  # it failed for good
    done: Line | None = None
    tools: list[Line] = field(factory=list)  # that ran after it, as they ended

    @property
    def last(self) -> Exchange | None:
        """The last try."""
        return self.tries[-1] if self.tries else None

    @property
    def end(self) -> float | None:
        """When it was over; None: it never was."""
        if self.done is not None:
            return float(self.done["at"])
        return None if self.last is None or self.error is None else self.last.ended

    @property
    def seconds(self) -> float | None:
        """From the call to the end, waits and failed tries included."""
        if self.done is not None and "seconds" in self.done:
            return float(self.done["seconds"])
        return None if self.last is None else self.last.seconds

    @property
    def first_event(self) -> float | None:
        """From the call to the first event of the try that counted."""
        if self.done is not None and "first_event" in self.done:
            return float(self.done["first_event"])
        return None if self.last is None else self.last.first


@define(eq=False)
class Conversation:
    """All that happened to one conversation, in order."""

    name: str
    tenant: str = ""
    turns: list[Turn] = field(factory=list)
    entries: list[Line | Exchange] = field(factory=list)  # the timeline
    started: float | None = None  # its run
    over: Line | None = None  # how its run ended
    moves: int = 0

    @property
    def start(self) -> float:
        """When it was first seen."""
        if self.started is not None:
            return self.started
        first = self.entries[0] if self.entries else None
        return 0.0 if first is None else first.sent if isinstance(first, Exchange) else float(first["at"])

    @property
    def seconds(self) -> float:
        """From its first to its last moment."""
        last = self.entries[-1] if self.entries else None
        if last is None:
            return 0.0
        end = (last.ended or last.sent) if isinstance(last, Exchange) else float(last["at"])
        return max(0.0, end - self.start)

    @property
    def slowest(self) -> float:
        """Seconds of its slowest turn."""
        return max((turn.seconds or 0.0 for turn in self.turns), default=0.0)

    @property
    def lanes(self) -> list[str]:
        """The lanes that it has been on, in order, without repeats."""
        lanes: list[str] = []
        for turn in self.turns:
            if turn.last is not None and (not lanes or lanes[-1] != turn.last.lane):
                lanes.append(turn.last.lane)
        return lanes


@define(eq=False)
class Connection:
    """One socket, from dial to end; or one turn over HTTP."""

    name: str
    opened: float | None = None
    dial: float | None = None  # s
    ended: float | None = None
    end: Line | None = None
    exchanges: list[Exchange] = field(factory=list)
    frames: int = 0
    strays: list[Line] = field(factory=list)

    @property
    def lost(self) -> bool:
        """It ended though we would rather have kept it."""
        return bool(self.end is not None and self.end.get("lost"))


@define(eq=False)
class Story:
    """All of a trace."""

    header: Header
    conversations: dict[str, Conversation] = field(factory=dict)
    connections: dict[str, Connection] = field(factory=dict)
    pools: list[Line] = field(factory=list)
    dials_failed: list[Line] = field(factory=list)
    seconds: float = 0.0
    lines: int = 0
    unrecorded: int = 0  # notes that were dropped, or lines that are torn

    @property
    def turns(self) -> list[Turn]:
        """The turns of all conversations, by their start."""
        every = [turn for one in self.conversations.values() for turn in one.turns]
        return sorted(every, key=lambda turn: turn.start)

    @property
    def exchanges(self) -> list[Exchange]:
        """The exchanges of all connections, by the time of their create."""
        every = [exchange for one in self.connections.values() for exchange in one.exchanges]
        return sorted(every, key=lambda exchange: exchange.sent)


def cause_of(end: Line) -> str:
    """Say in a few words why a connection ended."""
    if end.get("why"):
        return str(end["why"])
    code: Any = end.get("code")
    said = f", {end['reason']}" if end.get("reason") else ""
    return "by the server" if code is None else f"by the server, code {code}{said}"

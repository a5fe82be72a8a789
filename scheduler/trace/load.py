"""A trace as a load: what came when, how long the model and the tools took, how much was said. Pure but for the file.

For who plans: everything here is what the users and the model did, apart from `wait`, which is what the pool made of
it. Runs that the trace saw only a part of are marked, so that they can be left out.
"""

from __future__ import annotations

from attrs import frozen

from scheduler.trace.story import Conversation, Story, Turn
from scheduler.trace.tell import NOBODY, story_of


@frozen(kw_only=True)
class TurnLoad:
    """One turn that completed. Times in seconds."""

    start: float  # when it was asked for, from the start of the trace
    wait: float  # for admission and for a lane
    first_event: float  # from the create
    seconds: float  # from the create to the terminal event: its lane is busy
    tool_seconds: float  # after it, until the next turn is asked for; 0 for the last one
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    bytes_sent: int
    bytes_replay: int  # what sending the whole transcript would have been
    kind: str  # delta or replay
    reason: str
    model: str


@frozen(kw_only=True)
class RunLoad:
    """One conversation. `complete`: the trace saw its beginning and its end."""

    name: str
    tenant: str
    start: float
    end: float
    complete: bool
    turns: tuple[TurnLoad, ...]


@frozen(kw_only=True)
class Load:
    """All of them, by their start."""

    seconds: float  # that were traced
    runs: tuple[RunLoad, ...]
    dials: int
    connections_lost: int

    @property
    def arrivals(self) -> tuple[float, ...]:
        """When each run began."""
        return tuple(run.start for run in self.runs)

    @property
    def turns(self) -> tuple[TurnLoad, ...]:
        """The turns of all runs."""
        return tuple(turn for run in self.runs for turn in run.turns)


def load_of(path: str) -> Load:
    """Return the load that the trace in a file has seen. Raises like `open_reading`."""
    return load_in(story_of(path))


def load_in(story: Story) -> Load:
    """Return the load of a story."""
    every = story.conversations.values()
    runs = [_run(one) for one in every if one.name != NOBODY and any(map(_finished, one.turns))]
    return Load(
        seconds=story.seconds,
        runs=tuple(sorted(runs, key=lambda run: run.start)),
        dials=sum(connection.dial is not None for connection in story.connections.values()),
        connections_lost=sum(connection.lost for connection in story.connections.values()),
    )


def _finished(turn: Turn) -> bool:
    return turn.last is not None and turn.last.status in ("completed", "incomplete")


def _run(conversation: Conversation) -> RunLoad:
    turns = [turn for turn in conversation.turns if _finished(turn)]
    loads = [_turn(turn, after) for turn, after in zip(turns, [*turns[1:], None], strict=True)]
    # Without a run loop nobody says that it is over: then an answer without calls is taken for the end.
    ended = conversation.over is not None if conversation.started is not None else not _calls(turns[-1])
    return RunLoad(
        name=conversation.name,
        tenant=conversation.tenant or "default",
        start=min(conversation.start, loads[0].start),
        end=conversation.start + conversation.seconds,
        complete=ended and turns[0].number == 1,
        turns=tuple(loads),
    )


def _calls(turn: Turn) -> bool:
    return turn.last is not None and bool(turn.last.calls)


def _turn(turn: Turn, after: Turn | None) -> TurnLoad:
    exchange = turn.last
    assert exchange is not None
    assert exchange.ended is not None
    usage = exchange.usage
    return TurnLoad(
        start=turn.start,
        wait=turn.admission + turn.waited,
        first_event=exchange.first or 0.0,
        seconds=exchange.ended - exchange.sent,
        tool_seconds=0.0 if after is None else max(0.0, after.start - exchange.ended),
        input_tokens=usage.get("input_tokens", 0),
        cached_tokens=usage.get("cached_tokens", 0),
        output_tokens=usage.get("output_tokens", 0),
        bytes_sent=exchange.size,
        bytes_replay=exchange.size + exchange.saved,
        kind=turn.kind,
        reason=turn.reason or turn.kind,
        model=turn.model or exchange.model or "",
    )

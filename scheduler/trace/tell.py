"""Fold the lines of a trace into its story. Pure, one pass; deltas are only counted and timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field

from pool.wire.events import STARTED, TERMINAL
from scheduler.trace.reader import Reading, open_reading
from scheduler.trace.records import Header, Line
from scheduler.trace.story import Connection, Conversation, Exchange, Story, Turn

NOBODY = "(nobody)"  # messages that no conversation is known for


def tell(reading: Reading) -> Story:
    """Return the story of a trace."""
    story = fold(reading.header, reading)
    story.unrecorded += reading.torn
    return story


def story_of(path: str) -> Story:
    """Return the story of the trace in a file. Raises like `open_reading`."""
    return tell(open_reading(path))


def fold(header: Header, lines: Iterable[Line]) -> Story:
    """Return what the lines tell."""
    teller = _Teller(Story(header))
    for line in lines:
        teller.take(line)
    return teller.story


@define(eq=False)
class _Teller:
    story: Story
    _open: dict[str, Exchange] = field(factory=dict, init=False)  # by lane
    _slots: dict[str, float] = field(factory=dict, init=False)  # waits for admission, by conversation
    _saved: dict[str, int] = field(factory=dict, init=False)  # bytes, by the create to come
    _do: dict[str, Callable[[Line], None]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        names = "out in pool dialled dial_failed ended run run_over admitted placed turn retry failed move tool lost"
        self._do = {name: getattr(self, f"_{name}") for name in names.split()}
        self._do["tools"] = self._entry

    def take(self, line: Line) -> None:
        """Take the next line. What is not known, or is damaged, is passed over."""
        story = self.story
        story.lines += 1
        story.seconds = max(story.seconds, float(line["at"]))
        do = self._do.get(line["what"])
        if do is not None:
            try:
                do(line)
            except (KeyError, TypeError, ValueError, AttributeError):
                story.unrecorded += 1

    def _conv(self, line: Line) -> Conversation:
        name = str(line.get("conv") or NOBODY)
        found = self.story.conversations.get(name)
        if found is None:
            found = self.story.conversations[name] = Conversation(name)
        return found

    def _conn(self, name: str) -> Connection:
        found = self.story.connections.get(name)
        if found is None:
            found = self.story.connections[name] = Connection(name)
        return found

    def _entry(self, line: Line) -> None:
        self._conv(line).entries.append(line)

    # Messages.

    def _out(self, line: Line) -> None:
        lane = str(line["lane"])
        connection = self._conn(lane.partition("/")[0])
        connection.frames += 1
        if line["type"] != "response.create":
            return
        conversation = self._conv(line)
        exchange = Exchange(
            lane=lane,
            conv=conversation.name,
            sent=float(line["at"]),
            size=int(line["bytes"]),
            items=int(line.get("items", 0)),
            parent=line.get("parent"),
            warm_up=bool(line.get("warm_up")),
        )
        self._open[lane] = exchange
        connection.exchanges.append(exchange)
        conversation.entries.append(exchange)
        if not exchange.warm_up:
            turn = self._current(conversation, at=exchange.sent)
            turn.tries.append(exchange)
            exchange.reason = turn.reason
            exchange.saved = self._saved.pop(conversation.name, 0)
            if not turn.kind:
                turn.kind = "delta" if exchange.parent else "replay"

    def _in(self, line: Line) -> None:
        lane, kind, at = str(line["lane"]), line["type"], float(line["at"])
        connection = self._conn(lane.partition("/")[0])
        connection.frames += 1
        exchange = self._open.get(lane)
        if exchange is None or line.get("stray"):
            if line.get("stray"):
                connection.strays.append(line)
            return
        exchange.events.append(at)
        exchange.received += int(line["bytes"])
        if kind.endswith(".delta"):
            exchange.deltas += 1
            exchange.chars += int(line.get("chars", 0))
        elif kind == "response.output_item.done" and line.get("item") == "function_call":
            exchange.calls.append(str(line.get("name", "")))
        if exchange.first_output is None and kind not in STARTED:
            exchange.first_output = at
        exchange.response = line.get("response", exchange.response)
        exchange.model = line.get("model", exchange.model)
        if kind in TERMINAL or kind == "error":
            exchange.ended = at
            exchange.status = "refused" if kind == "error" else kind.rpartition(".")[2]
            exchange.usage = dict(line.get("usage", {}))
            exchange.code = line.get("code")
            del self._open[lane]

    # Connections.

    def _pool(self, line: Line) -> None:
        self.story.pools.append(line)

    def _dialled(self, line: Line) -> None:
        connection = self._conn(str(line["conn"]))
        connection.opened, connection.dial = float(line["at"]), float(line["seconds"])

    def _dial_failed(self, line: Line) -> None:
        self.story.dials_failed.append(line)

    def _ended(self, line: Line) -> None:
        name = str(line["conn"])
        connection = self._conn(name)
        connection.ended, connection.end = float(line["at"]), line
        for lane in [lane for lane in self._open if lane.partition("/")[0] == name]:
            exchange = self._open.pop(lane)
            exchange.ended, exchange.status = float(line["at"]), "lost"

    # Runs and turns.

    def _run(self, line: Line) -> None:
        conversation = self._conv(line)
        conversation.tenant = str(line.get("tenant", ""))
        conversation.started = float(line["at"]) - float(line.get("waited", 0.0))
        conversation.entries.append(line)

    def _run_over(self, line: Line) -> None:
        conversation = self._conv(line)
        conversation.over = line
        conversation.entries.append(line)

    def _admitted(self, line: Line) -> None:
        conversation = self._conv(line)
        self._slots[conversation.name] = float(line["waited"])
        conversation.entries.append(line)

    def _placed(self, line: Line) -> None:
        conversation = self._conv(line)
        waited = float(line.get("waited", 0.0))
        turn = self._current(conversation, at=float(line["at"]) - waited)
        if not turn.tries:
            turn.admission = self._slots.pop(conversation.name, 0.0)
            turn.start -= turn.admission
        turn.number = int(line.get("turn", turn.number))
        turn.kind, turn.reason, turn.lane = str(line["kind"]), str(line["reason"]), str(line["lane"])
        turn.model, turn.waited = str(line.get("model", "")), turn.waited + waited
        self._saved[conversation.name] = int(line.get("saved", 0))
        conversation.tenant = conversation.tenant or str(line.get("tenant", ""))
        conversation.entries.append(line)

    def _current(self, conversation: Conversation, at: float) -> Turn:
        """Return the turn that is under way, or begin one."""
        last = conversation.turns[-1] if conversation.turns else None
        # Who uses a pool without a scheduler says nothing of turns: there the end of a response ends it.
        if last is None or last.done is not None or last.error is not None or _ended_by_itself(last):
            last = Turn(conversation.name, len(conversation.turns) + 1, at)
            conversation.turns.append(last)
        return last

    def _turn(self, line: Line) -> None:
        conversation = self._conv(line)
        self._current(conversation, float(line["at"])).done = line
        conversation.entries.append(line)

    def _retry(self, line: Line) -> None:
        conversation = self._conv(line)
        conversation.entries.append(line)
        self._current(conversation, float(line["at"])).retries.append(line)

    def _failed(self, line: Line) -> None:
        conversation = self._conv(line)
        conversation.entries.append(line)
        self._current(conversation, float(line["at"])).error = str(line.get("error", "failed"))

    def _move(self, line: Line) -> None:
        conversation = self._conv(line)
        conversation.moves += line.get("state") == "made"
        conversation.entries.append(line)

    def _tool(self, line: Line) -> None:
        conversation = self._conv(line)
        conversation.entries.append(line)
        if conversation.turns:
            conversation.turns[-1].tools.append(line)

    def _lost(self, line: Line) -> None:
        self.story.unrecorded += int(line["count"])


def _ended_by_itself(turn: Turn) -> bool:
    return not turn.lane and turn.last is not None and turn.last.ended is not None

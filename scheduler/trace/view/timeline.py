"""One conversation, or one connection, as a timeline. Pure: lines of (moment, kind, text)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import frozen

from scheduler.fleet.report import count, size
from scheduler.trace.records import Line
from scheduler.trace.story import Connection, Conversation, Exchange, Story, Turn, cause_of
from scheduler.trace.view.words import plural, seconds, why

SHORT = 0.001  # s; a wait that is shorter is none


@frozen
class Row:
    """One line of a timeline. `bad`: something that is not as it should be."""

    at: float
    label: str
    text: str
    bad: bool = False


def of_conversation(story: Story, conversation: Conversation) -> list[Row]:
    """Return what happened to a conversation, across its sockets."""
    rows: list[Row] = []
    by_exchange = {id(one): turn for turn in conversation.turns for one in turn.tries}
    seen: set[int] = set()
    for entry in conversation.entries:
        if isinstance(entry, Exchange):
            turn = by_exchange.get(id(entry))
            rows += _sent(entry, turn, again=turn is not None and id(turn) in seen)
            if turn is not None:
                seen.add(id(turn))
            rows += _came(entry)
        else:
            rows += _happened(entry)
    for connection in {one.conn for one in by_tries(conversation)}:
        end = story.connections[connection].end
        if end is not None and end.get("lost"):
            text = f"{connection} was lost ({cause_of(end)})"
            rows.append(Row(float(end["at"]), "lost", text, bad=True))
    return sorted(rows, key=lambda row: row.at)


def by_tries(conversation: Conversation) -> list[Exchange]:
    """Return the exchanges of a conversation, warm-ups included."""
    return [entry for entry in conversation.entries if isinstance(entry, Exchange)]


def of_connection(connection: Connection) -> list[Row]:
    """Return what happened on a connection."""
    rows: list[Row] = []
    if connection.opened is not None:
        rows.append(Row(connection.opened, "opened", f"dialled in {seconds(connection.dial)}"))
    for exchange in connection.exchanges:
        lane = exchange.lane.partition("/")[2]
        what = "warm-up" if exchange.warm_up else "delta" if exchange.parent else "replay"
        text = f"{lane}: {exchange.conv or '(nobody)'}, {what}, {size(exchange.size)}; {_outcome(exchange)}"
        rows.append(Row(exchange.sent, "create", text, bad=exchange.status in ("lost", "failed", "refused")))
    rows += [
        Row(float(line["at"]), "stray", f"{line['type']} for nobody", bad=True) for line in connection.strays
    ]
    if connection.end is not None:
        end = connection.end
        cut = [name for name in end.get("cut", ()) if name]
        cost = f", in mid-turn: {', '.join(cut)}" if cut else ""
        text = f"{cause_of(end)}, after {seconds(float(end.get('age', 0)))}{cost}"
        rows.append(Row(float(end["at"]), "lost" if connection.lost else "ended", text, bad=connection.lost))
    return sorted(rows, key=lambda row: row.at)


def _sent(exchange: Exchange, turn: Turn | None, *, again: bool) -> Iterator[Row]:
    amount = f"{plural(exchange.items, 'item')}, {size(exchange.size)}"
    if exchange.warm_up or turn is None:
        yield Row(exchange.sent, "warm-up", f"{amount} to {exchange.lane}, nothing to be generated")
        return
    what = "delta" if exchange.parent else "replay"
    reason = exchange.reason
    because = {"hot": "hot", "hydrated": "hydrated: the server has stored its parent"}.get(
        reason, f"{reason.removeprefix('replay:')}, {why(reason)}" if reason else ""
    )
    waits = []
    if turn.admission >= SHORT and not again:
        waits.append(f"{seconds(turn.admission)} for admission")
    if turn.waited >= SHORT and turn.last is exchange:
        waits.append(f"{seconds(turn.waited)} for a lane")
    waited = f", waited {' and '.join(waits)}" if waits else ""
    saved = f" instead of {size(exchange.size + exchange.saved)}" if exchange.saved else ""
    label = f"turn {turn.number}" + (" again" if again else "")
    text = f"{what}{f' ({because})' if because else ''}, {amount}{saved} to {exchange.lane}{waited}"
    yield Row(exchange.sent, label, text, bad=what == "replay" and reason not in ("replay:new", ""))


def _came(exchange: Exchange) -> Iterator[Row]:
    if exchange.first is not None and not exchange.warm_up and exchange.status != "refused":
        yield Row(exchange.events[0], "first", f"event after {seconds(exchange.first)}")
    end = exchange.ended if exchange.ended is not None else exchange.sent
    bad = exchange.status not in ("completed", "open")
    yield Row(end, "open" if exchange.status == "open" else exchange.status, _outcome(exchange), bad=bad)


def _outcome(exchange: Exchange) -> str:
    if exchange.status == "open":
        return "no end in this trace"
    parts = [f"after {seconds(exchange.seconds)}"]
    if exchange.code:
        parts.append(exchange.code)
    if exchange.events and exchange.status != "refused":
        parts.append(f"{plural(len(exchange.events), 'event')}, {size(exchange.received)}")
    if exchange.calls:
        parts.append("calls " + ", ".join(exchange.calls))
    if exchange.usage:
        usage = exchange.usage
        cached = usage.get("cached_tokens", 0)
        said = f" ({count(cached)} cached)" if cached else ""
        out = f", {count(usage.get('output_tokens', 0))} out" if not exchange.warm_up else ""
        parts.append(f"{count(usage.get('input_tokens', 0))} tokens in{said}{out}")
    return "; ".join(parts)


def _happened(line: Line) -> Iterator[Row]:
    at, what = float(line["at"]), line["what"]
    match what:
        case "run":
            waited = float(line.get("waited", 0.0))
            said = f", waited {seconds(waited)} for admission" if waited >= SHORT else ""
            yield Row(at, "run", f"begins, tenant {line.get('tenant', 'default')}{said}")
        case "run_over":
            failed = bool(line.get("failed"))
            how = "failed" if failed else "over"
            took = seconds(float(line.get("seconds", 0)))
            yield Row(at, "run", f"{how} after {took}, {plural(int(line.get('turns', 0)), 'turn')}", failed)
        case "retry":
            delay = float(line.get("delay", 0.0))
            pause = f" in {seconds(delay)}" if delay >= SHORT else ""
            yield Row(at, "retry", f"again{pause}: {line.get('reason')} ({line.get('error')})", bad=True)
        case "failed":
            yield Row(at, "failed", str(line.get("error")), bad=True)
        case "move":
            state = str(line.get("state"))
            said = f": {line['error']}" if "error" in line else ""
            yield Row(at, "move", f"to another lane {state}{said}", bad=state == "failed")
        case "tool":
            failed = bool(line.get("failed"))
            text = f"{line.get('name')} took {seconds(float(line.get('seconds', 0)))}"
            yield Row(at, "tool", text + (", failed" if failed else ""), bad=failed)


def as_json(conversation: Conversation) -> dict[str, Any]:
    """Return a conversation, turn by turn, as JSON."""
    return {"turns": [_turn(turn) for turn in conversation.turns]}


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "turn": turn.number,
        "start": round(turn.start, 6),
        "kind": turn.kind,
        "reason": turn.reason,
        "admission": turn.admission,
        "waited": turn.waited,
        "seconds": turn.seconds,
        "first_event": turn.first_event,
        "tokens": dict(turn.last.usage) if turn.last is not None else {},
        "retries": [dict(line) for line in turn.retries],
        "tools": [dict(line) for line in turn.tools],
        "error": turn.error,
        "tries": [_try(one) for one in turn.tries],
    }


def _try(exchange: Exchange) -> dict[str, Any]:
    return {
        "lane": exchange.lane,
        "sent": exchange.sent,
        "bytes_sent": exchange.size,
        "items": exchange.items,
        "parent": exchange.parent,
        "response": exchange.response,
        "first_event": exchange.first,
        "seconds": exchange.seconds,
        "events": len(exchange.events),
        "bytes_received": exchange.received,
        "status": exchange.status,
        "code": exchange.code,
        "calls": list(exchange.calls),
    }

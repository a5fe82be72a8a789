"""Notices when a fleet keeps losing deltas, or its prompt cache, for one reason, and says what would help. Pure.

Theory of operation
    Now and then a conversation loses its lane, and that is what replays are for. It is worth a warning when it goes
    on: turns are counted in blocks, and a reason that has its share of `BLOCKS` blocks in a row is told, once for as
    long as the watch lives. A short fleet never fills two blocks, and the first turns of conversations are no loss.
    What can only be the caller's doing (`AT_ONCE`) is told the first time that it happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from attrs import define, field, frozen

BLOCK = 100  # turns
SHARE = 0.2  # of a block: less is noise, and costs little
BLOCKS = 2  # in a row

AT_ONCE = frozenset({"replay:rewritten"})

# What would help, by the reason of a placement, or by what was changed.
REMEDIES: Mapping[str, str] = {
    "replay:stolen": "lanes are scarce: raise max_connections, or let fewer runs go on at once",
    "replay:moved": "its lane is busy when a conversation comes back: raise max_connections",
    "replay:rotated": "connections are replaced faster than conversations can leave them: raise `reserve` or `moves`",
    "replay:expired": "connections reach their cap in use: raise `reserve`, or correct the endpoint's max_age",
    "replay:idle": "conversations stay away for longer than connections live idle: raise idle_timeout, or store",
    "replay:lost": "connections break: look for a proxy that cuts them, lower keepalive_interval, or store",
    "replay:stalled": "responses stall: see whether the server thinks for longer than stall_timeout",
    "replay:abandoned": "turns are cancelled while the server answers: let them end, or store",
    "replay:failed": "turns are refused, and the server forgets their parents: see the errors in the log",
    "replay:forgotten": "the server does not know responses it should remember: see whether a proxy shares sockets",
    "replay:model": "models share too few connections where each serves one: raise max_connections",
    "replay:rewritten": "histories are edited instead of extended: add new items at their end",
    "http:fallback": "no socket can be opened: see the errors of the dials, or set transport to http",
    "http:oversize": "messages are over the endpoint's frame cap: compact, or store",
    "changed:model": "conversations go from model to model, and each has its own cache: give each model its own",
    "changed:instructions": "instructions differ from turn to turn: put what changes (the time ...) into the input",
    "changed:tools": "tools differ from turn to turn: always send all, in one order, and choose with tool_choice",
    "changed:reasoning": "reasoning settings differ from turn to turn: keep one for the whole conversation",
}


@frozen(kw_only=True)
class Complaint:
    """A reason that keeps coming: `count` of the last `turns`. Its text says what would help."""

    reason: str
    count: int
    turns: int

    def __str__(self) -> str:
        if self.reason in AT_ONCE:
            return f"a turn is no delta ({self.reason}): {REMEDIES[self.reason]}"
        what = "lose the model's prompt cache" if self.reason.startswith("changed:") else "are no deltas"
        return f"{self.count} of the last {self.turns} turns {what} ({self.reason}): {REMEDIES[self.reason]}"


@define(eq=False)
class LossWatch:
    """Watches the turns of one scheduler."""

    _turns: int = field(default=0, init=False)  # of the present block
    _seen: Counter[str] = field(factory=Counter, init=False)
    _rows: Counter[str] = field(factory=Counter, init=False)  # blocks in a row, by reason
    _told: set[str] = field(factory=set, init=False)

    def saw(self, reason: str, changes: Iterable[str]) -> list[Complaint]:
        """A turn was placed for this reason, and changed so much; return what is to be told."""
        told = self._tell({reason: 1}, turns=1) if reason in AT_ONCE else []
        if reason in REMEDIES:
            self._seen[reason] += 1
        for what in changes:
            self._seen[f"changed:{what}"] += 1
        self._turns += 1
        if self._turns < BLOCK:
            return told
        often = {one: count for one, count in self._seen.items() if count >= SHARE * BLOCK}
        self._turns, self._seen = 0, Counter()
        self._rows = Counter({one: self._rows[one] + 1 for one in often})
        lasting = {one: count for one, count in often.items() if self._rows[one] >= BLOCKS}
        return told + self._tell(lasting, turns=BLOCK)

    def _tell(self, counts: Mapping[str, int], *, turns: int) -> list[Complaint]:
        new = [one for one in counts if one not in self._told]
        self._told.update(new)
        return [Complaint(reason=one, count=counts[one], turns=turns) for one in new]

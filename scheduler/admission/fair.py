"""Who waits for a slot, and who is next: tenants by deficit round robin over tokens, then by priority. Pure.

Theory of operation
    Claims wait in lines, one for each tenant and kind (for turns the kind is the model, because each model may be
    held up alone). All lines of one kind form a ring.

    Deficit round robin visits the lines of a ring in turn: on each visit a line earns tokens in proportion to its
    weight, and it is served while it has not spent more than it earned. A dear turn thus waits for many rounds,
    all of them walked. Here the rounds are as short as can be, one token for weight 1, and nobody walks them:
    `Line.spent` says in which round a line has earned back what it spent, a heap has the line of the earliest
    round on top, and `Ring.now` is the round that has been reached. What is charged is the estimate; when the
    real usage is known, the difference is charged or given back, in later rounds.

    A line that begins to wait joins in the present round: no credit for the time in which it wanted nothing, or
    was at its tenant's cap. What it overspent it still has to earn, unless at some moment nobody waits any more.

    Between rings, when several of them could be served, the tenant goes first whose own round (`Share.spent`,
    over all its lines) is the earliest, so weights hold also between tenants that use different models.

    Within a line the order is by rank: the time of arrival, brought forward by `ageing` seconds for each level of
    priority. So a claim that has waited for `ageing` seconds is even with one of the next level that has just
    come, and ranks need no updating as time passes.

    Heaps keep what has left until it surfaces, or until most of a heap has left; the dictionaries have the truth.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator

from attrs import define, field

SLACK = 64  # entries of a heap that may have left, beside as many as are alive
RINGS = 1024  # more kinds than these are remembered only while somebody waits


@define(eq=False)
class Claim:
    """A wish for one slot. `cost` is in tokens, estimated."""

    share: Share = field(repr=False)
    kind: str
    cost: int
    rank: float  # the lower goes first
    since: float


@define(eq=False)
class Line:
    """The claims of one tenant on one kind."""

    share: Share
    ring: Ring
    spent: float = 0.0  # the round in which it has earned what it spent
    waiting: dict[Claim, None] = field(factory=dict, init=False)
    serial: int = field(default=0, init=False)  # of its entry on the ring's heap; 0: none
    _heap: list[tuple[float, int, Claim]] = field(factory=list, init=False)

    def add(self, claim: Claim, serial: int) -> None:
        """Let a claim wait."""
        self.waiting[claim] = None
        heapq.heappush(self._heap, (claim.rank, serial, claim))

    def remove(self, claim: Claim) -> None:
        """A claim waits no longer."""
        del self.waiting[claim]
        if len(self._heap) > 2 * len(self.waiting) + SLACK:
            self._heap = [entry for entry in self._heap if entry[2] in self.waiting]
            heapq.heapify(self._heap)

    def head(self) -> Claim:
        """Return the claim that is next. There must be one."""
        while self._heap[0][2] not in self.waiting:
            heapq.heappop(self._heap)
        return self._heap[0][2]


@define(eq=False)
class Share:
    """One tenant: its weight, its cap, its lines, and what it has in flight."""

    name: str
    weight: float = 1.0
    cap: float = math.inf
    spent: float = 0.0  # as a line's, over all of them
    lines: dict[str, Line] = field(factory=dict, init=False, repr=False)
    in_flight: dict[Claim, None] = field(factory=dict, init=False, repr=False)

    @property
    def full(self) -> bool:
        """It is at its cap."""
        return len(self.in_flight) >= self.cap

    @property
    def parked(self) -> bool:
        """What it waits for stands before nobody, because it is at its cap."""
        return self.full and self.waiting > 0

    @property
    def waiting(self) -> int:
        """How many of its claims wait."""
        return sum(len(line.waiting) for line in self.lines.values())


@define(eq=False)
class Ring:
    """All lines of one kind."""

    kind: str
    now: float = 0.0  # the round that has been reached
    latest: float = 0.0  # the round in which everybody has earned what it spent
    lines: dict[Line, None] = field(factory=dict, init=False)  # in which somebody waits
    _heap: list[tuple[float, int, Line]] = field(factory=list, init=False)

    def put(self, line: Line, serial: int) -> None:
        """Put a line where it belongs; an earlier entry of it no longer counts."""
        line.serial = serial
        heapq.heappush(self._heap, (line.spent, serial, line))
        if len(self._heap) > 2 * len(self.lines) + SLACK:
            self._heap = [entry for entry in self._heap if entry[1] == entry[2].serial]
            heapq.heapify(self._heap)

    def head(self) -> Line | None:
        """Return the line to serve next; None when all are at their tenants' caps."""
        heap = self._heap
        while heap:
            _spent, serial, line = heap[0]
            if serial == line.serial:
                if not line.share.full:
                    return line
                line.serial = 0
            heapq.heappop(heap)
        return None


@define(eq=False)
class FairQueue:
    """Everybody who waits."""

    now: float = field(default=0.0, init=False)  # the round that has been reached, over all rings
    latest: float = field(default=0.0, init=False)
    active: dict[str, Ring] = field(factory=dict, init=False)  # in which somebody waits, by kind
    waiting: dict[Claim, None] = field(factory=dict, init=False)
    _rings: dict[str, Ring] = field(factory=dict, init=False)
    _serial: Iterator[int] = field(factory=lambda: itertools.count(1), init=False)

    def push(self, claim: Claim) -> None:
        """Let a claim wait."""
        share, ring = claim.share, self._ring(claim.kind)
        line = share.lines.get(claim.kind)
        if line is None or line.ring is not ring:
            line = share.lines[claim.kind] = Line(share, ring)
        if not share.waiting:
            share.spent = max(share.spent, self.now)
        line.add(claim, next(self._serial))
        self.waiting[claim] = None
        if line not in ring.lines:
            ring.lines[line] = None
            self.active[claim.kind] = ring
            self._rejoin(line)

    def remove(self, claim: Claim) -> None:
        """A claim waits no longer, served or not."""
        line = claim.share.lines[claim.kind]
        ring = line.ring
        line.remove(claim)
        del self.waiting[claim]
        if not line.waiting:
            line.serial = 0
            del ring.lines[line]
            if not ring.lines:
                del self.active[claim.kind]
                ring.now = ring.latest
        if not self.waiting:
            self.now = self.latest

    def revive(self, share: Share) -> None:
        """A tenant that was at its cap is below it."""
        for line in share.lines.values():
            if line.waiting and not line.serial:
                self._rejoin(line)

    def next(self, usable: Callable[[Claim], bool]) -> Claim | None:
        """Return who is to be served now: the best of the rings' heads that are `usable`. It stays in its line."""
        best: Line | None = None
        for ring in self.active.values():
            line = ring.head()
            if line is not None and usable(line.head()) and (best is None or self._before(line, best)):
                best = line
        return None if best is None else best.head()

    def serve(self, claim: Claim) -> None:
        """Take a claim out of its line and charge its tenant."""
        share, line = claim.share, claim.share.lines[claim.kind]
        ring = line.ring
        ring.now = max(ring.now, line.spent)
        self.now = share.spent = max(self.now, share.spent)
        self._charge(line, claim.cost)
        self.remove(claim)

    def correct(self, claim: Claim, tokens: int) -> None:
        """A claim that was served has cost so many tokens."""
        line = claim.share.lines.get(claim.kind)
        if line is not None:
            self._charge(line, tokens - claim.cost)

    def _charge(self, line: Line, tokens: int) -> None:
        share, ring = line.share, line.ring
        rounds = tokens / share.weight
        share.spent += rounds
        line.spent += rounds
        ring.latest, self.latest = max(ring.latest, line.spent), max(self.latest, share.spent)
        if line.serial:
            ring.put(line, next(self._serial))

    def _rejoin(self, line: Line) -> None:
        line.spent = max(line.spent, line.ring.now)
        line.ring.put(line, next(self._serial))

    def _before(self, line: Line, other: Line) -> bool:
        # What a tenant could not use while its models were held up is no credit over the others.
        mine, yours = max(line.share.spent, self.now), max(other.share.spent, self.now)
        return (mine, line.serial) < (yours, other.serial)

    def _ring(self, kind: str) -> Ring:
        ring = self._rings.get(kind)
        if ring is None:
            if len(self._rings) >= RINGS:
                self._rings = dict(self.active)
            ring = self._rings[kind] = Ring(kind)
        return ring

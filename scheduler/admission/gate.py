"""Who may have something in flight, and who waits: slots under all their limits at once. Pure.

Theory of operation
    A claim is granted at once when nobody waits and no limit is in the way, which costs next to nothing; else it
    waits in the fair queue. Every call that changes something ends in `_settle`, the only matching code, which
    grants what can be granted, in the queue's order, and returns it for the shell to wake. The limits:

        all                 `capacity`, asked each time, because the pool behind it may be resized
        each tenant         its cap
        each kind (model)   its budgets, the adaptive limit, a wait that the server has asked for

    A claim whose kind is held up does not hold up the others. A kind's head that does not fit its token budget is
    waited for, and not passed over for a cheaper one behind it. `next_due` says when to call `tick`, if nothing
    else happens first.

    The line is bounded. When it is full, only tenants that have their part of it are turned away, so that one who
    floods it does not shut the others out; at twice the bound everybody is.

    Moves: WAITING -> GRANTED -> OVER, or WAITING -> OVER.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping

from attrs import define, field

from scheduler.admission.adaptive import AdaptiveLimit
from scheduler.admission.fair import Claim, FairQueue, Share
from scheduler.admission.tenant import Budget, Tenant
from scheduler.admission.window import Charge, Window
from scheduler.errors import AdmissionQueueFull

# Tenants, and kinds: more than these are remembered only while they have something going on
REMEMBERED = 1024
NO_BUDGET = Budget()
FIRST_GUESS = 256.0  # tokens of an answer, before one was seen
MEMORY = 16  # answers that count


class SlotState(enum.Enum):
    """Where a claim is."""

    WAITING = "waiting"
    GRANTED = "granted"
    OVER = "over"


MOVES: Mapping[SlotState, frozenset[SlotState]] = {
    SlotState.WAITING: frozenset({SlotState.GRANTED, SlotState.OVER}),
    SlotState.GRANTED: frozenset({SlotState.OVER}),
    SlotState.OVER: frozenset(),
}


@define(eq=False)
class Slot(Claim):
    """A claim as the gate sees it."""

    state: SlotState = field(default=SlotState.WAITING, init=False)
    epoch: int = field(default=0, init=False)  # of the adaptive limit, at the grant
    queued: bool = field(default=False, init=False)  # it had to wait, so its tenant was charged for it
    charge: Charge | None = field(default=None, init=False)  # of the token budget

    def move(self, state: SlotState) -> None:
        """The one mover."""
        assert state in MOVES[self.state], f"{self.state} -> {state}"
        self.state = state


@define(eq=False)
class Kind:
    """One model: its limits, and what it has in flight."""

    name: str
    adaptive: AdaptiveLimit
    requests: Window | None = None
    tokens: Window | None = None
    answer: float = field(default=FIRST_GUESS, init=False)  # tokens of one, on average of late
    in_flight: dict[Slot, None] = field(factory=dict, init=False)

    def answered(self, tokens: int) -> None:
        """An answer was so long."""
        self.answer += (tokens - self.answer) / MEMORY

    def ready_at(self, cost: int, now: float) -> float:
        """Return when to look again whether one more may start: `now` for at once, `math.inf` for "after another"."""
        ready = self.adaptive.ready_at(len(self.in_flight), now)
        if self.requests is not None and not self.requests.fits(1, now):
            ready = max(ready, self.requests.next_change())
        if self.tokens is not None and not self.tokens.fits(cost, now):
            ready = max(ready, self.tokens.next_change())
        return ready

    def earliest(self, cost: int, now: float) -> float:
        """Return before when one more certainly cannot start."""
        ready = max(now, self.adaptive.held_until)
        if self.requests is not None:
            ready = max(ready, self.requests.ready_at(1, now))
        if self.tokens is not None:
            ready = max(ready, self.tokens.ready_at(cost, now))
        return ready

    @property
    def idle(self) -> bool:
        """Nothing would be lost by forgetting it."""
        return (
            not self.in_flight
            and self.adaptive.idle
            and (self.requests is None or not self.requests.used)
            and (self.tokens is None or not self.tokens.used)
        )


def _unlimited() -> float:
    return math.inf


def _uncapped(_tenant: Tenant) -> int | None:
    return None


@define(eq=False, kw_only=True)
class Gate:
    """Slots for one sort of thing: runs, or turns. Times are seconds on one clock of the caller's."""

    what: str = "turn"
    capacity: Callable[[], float] = _unlimited
    max_queued: int = 10_000
    ageing: float = 30.0
    tenants: Mapping[str, Tenant] = field(factory=dict)
    cap_of: Callable[[Tenant], int | None] = _uncapped
    budgets: Mapping[str, Budget] = field(factory=dict)
    adaptive: bool = False
    in_flight: dict[Slot, None] = field(factory=dict, init=False)
    kinds: dict[str, Kind] = field(factory=dict, init=False)
    shares: dict[str, Share] = field(factory=dict, init=False)
    _queue: FairQueue = field(factory=FairQueue, init=False)
    _wake_at: float = field(default=math.inf, init=False)

    def __str__(self) -> str:
        return f"in_flight={len(self.in_flight)} waiting={len(self.waiting)} capacity={self.capacity():g}"

    @property
    def waiting(self) -> Mapping[Claim, None]:
        """Everybody who waits, the oldest first."""
        return self._queue.waiting

    def ask(self, slot: Slot, *, now: float) -> list[Slot]:
        """Somebody wants a slot; `slot.state` says whether it got it. Returns who else did.

        Raises:
            AdmissionQueueFull: too many wait already.
        """
        share = slot.share
        if self.spare(slot, now=now):
            return self._settle(now) if share.parked else []
        self._check_room(share)
        slot.queued = True
        self._queue.push(slot)
        return self._settle(now)

    def spare(self, slot: Slot, *, now: float) -> bool:
        """Grant a slot if one is free that nobody waits for; say whether there was."""
        # Who waits for other kinds could not use a slot that is free.
        if slot.kind in self._queue.active or len(self.in_flight) >= self.capacity() or slot.share.full:
            return False
        kind = self._kind(slot.kind)
        if kind.ready_at(slot.cost, now) > now:
            return False
        self._grant(slot, kind, now)
        return True

    def withdraw(self, slot: Slot, *, now: float) -> list[Slot]:
        """Somebody stopped waiting, perhaps after it was granted what it never saw."""
        if slot.state is SlotState.GRANTED:
            return self.leave(slot, now=now)
        slot.move(SlotState.OVER)
        self._queue.remove(slot)
        return self._settle(now)

    def expected(self, name: str) -> int:
        """Return how many tokens the next answer of a model may have."""
        kind = self.kinds.get(name)
        return int(FIRST_GUESS if kind is None else kind.answer)

    def leave(
        self, slot: Slot, *, tokens: int | None = None, answer: int | None = None, now: float
    ) -> list[Slot]:
        """A slot is free again. If known: `tokens`, what the turn has cost; `answer`, its output."""
        slot.move(SlotState.OVER)
        share, kind = slot.share, self.kinds[slot.kind]
        was_full = share.full
        if answer is not None:
            kind.answered(answer)
        if tokens is not None:
            kind.adaptive.succeeded(len(kind.in_flight), now)
            if slot.queued:
                self._queue.correct(slot, tokens)
            if slot.charge is not None and kind.tokens is not None:
                kind.tokens.correct(slot.charge, tokens, now)
        del self.in_flight[slot], share.in_flight[slot], kind.in_flight[slot]
        if was_full:
            self._queue.revive(share)
        return self._settle(now) if self._queue.waiting else []

    def refused(self, slot: Slot, *, retry_after: float | None, now: float) -> list[Slot]:
        """The server refused this turn because there are too many. Its slot is free."""
        kind = self.kinds[slot.kind]
        kind.adaptive.limited(
            epoch=slot.epoch, in_flight=len(kind.in_flight), retry_after=retry_after, now=now
        )
        return self.leave(slot, now=now)

    def tick(self, *, now: float) -> list[Slot]:
        """Look at everything that has come due."""
        return self._settle(now)

    def next_due(self) -> float:
        """Return when `tick` is wanted; `math.inf` for not at all."""
        return self._wake_at

    def earliest(self, kind: str, cost: int, now: float) -> float:
        """Return before when such a claim certainly gets no slot: `now` when it might get one at once."""
        known = self.kinds.get(kind)
        return now if known is None else known.earliest(cost, now)

    def share(self, name: str) -> Share:
        """Return the share of a tenant."""
        share = self.shares.get(name)
        if share is None:
            if len(self.shares) >= REMEMBERED:
                self.shares = {
                    one: share for one, share in self.shares.items() if share.in_flight or share.waiting
                }
            tenant = self.tenants.get(name)
            cap = None if tenant is None else self.cap_of(tenant)
            share = self.shares[name] = Share(
                name, 1.0 if tenant is None else tenant.weight, math.inf if cap is None else cap
            )
        return share

    def _settle(self, now: float) -> list[Slot]:
        granted: list[Slot] = []
        self._wake_at = math.inf
        queue = self._queue

        def usable(claim: Claim) -> bool:
            ready = self._kind(claim.kind).ready_at(claim.cost, now)
            if ready > now:
                self._wake_at = min(self._wake_at, ready)
            return ready <= now

        while queue.waiting and len(self.in_flight) < self.capacity():
            slot = queue.next(usable)
            if slot is None:
                break
            assert isinstance(slot, Slot)
            queue.serve(slot)
            self._grant(slot, self._kind(slot.kind), now)
            granted.append(slot)
        return granted

    def _grant(self, slot: Slot, kind: Kind, now: float) -> None:
        slot.move(SlotState.GRANTED)
        slot.epoch = kind.adaptive.epoch
        if kind.requests is not None:
            kind.requests.charge(1, now)
        if kind.tokens is not None:
            slot.charge = kind.tokens.charge(slot.cost, now)
        self.in_flight[slot] = slot.share.in_flight[slot] = kind.in_flight[slot] = None

    def _kind(self, name: str) -> Kind:
        kind = self.kinds.get(name)
        if kind is None:
            if len(self.kinds) >= REMEMBERED:
                self.kinds = {one: kind for one, kind in self.kinds.items() if not kind.idle}
            budget = self.budgets.get(name, NO_BUDGET)
            requests, tokens = budget.requests_per_minute, budget.tokens_per_minute
            kind = self.kinds[name] = Kind(
                name,
                AdaptiveLimit(self.adaptive),
                None if requests is None else Window(requests),
                None if tokens is None else Window(tokens),
            )
        return kind

    def _check_room(self, share: Share) -> None:
        waiting, limit = len(self._queue.waiting), self.max_queued
        if waiting < limit:
            return
        tenants = sum(1 for other in self.shares.values() if other.waiting or other is share)
        if waiting >= 2 * limit or share.waiting >= max(1, limit // tenants):
            raise AdmissionQueueFull(
                self.what, tenant=share.name, waiting=waiting, limit=limit, state=str(self)
            )

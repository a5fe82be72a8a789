"""The trio shell around the gates: it admits, keeps deadlines, and tells the gates what happened.

Theory of operation
    Two gates: one for runs (each costs 1), one for turns (each costs its tokens). A turn's slot is held only while
    the turn is in flight, never while tools run; a run started in a tool of another rides on that one's
    admission. So a nested run waits for nothing that its parents hold, however deep. How they wait is in line.py.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from types import TracebackType
from typing import Literal

import trio
from attrs import define, field

from pool.errors import PoolError
from scheduler.admission.gate import Gate, SlotState
from scheduler.admission.line import Line, Waiting
from scheduler.admission.refusal import told_wait, too_many
from scheduler.admission.ticket import Ticket, current, make_ticket, parent_of
from scheduler.admission.view import AdmissionView, view_of
from scheduler.admission.waits import AdmissionStats
from scheduler.errors import DeadlineExceeded
from scheduler.settings import SchedulerSettings
from scheduler.turns import Usage

RUN = "run"  # the one kind of the gate for runs
UNWATCHED: AbstractContextManager[None] = nullcontext()


@define(eq=False)
class TurnSlot(Waiting):
    """A slot for one try of a turn. Made by `Admission.turn`; enter it, and say `completed` inside."""

    ticket: Ticket = field(kw_only=True)
    _admission: Admission = field(kw_only=True, repr=False)
    _usage: Usage | None = field(default=None, init=False)

    def completed(self, usage: Usage) -> None:
        """The turn has completed, and this is what it used."""
        self.used(usage)
        self.ticket.turns += 1

    def used(self, usage: Usage) -> None:
        """What it was asked for has succeeded, and used so much. Also for what is no turn but costs like one."""
        self._usage = usage

    async def __aenter__(self) -> TurnSlot:
        # Not always a checkpoint, unlike the rest of this project: when nothing is limited, the microseconds that
        # this costs must not become twenty. The acquire of a lane, which follows, always is one.
        line = self._admission.ask_turn(self)
        if self.state is SlotState.WAITING:
            await line.wait(self, self.ticket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.end_turn(self, self._usage, error)


@define(eq=False, init=False)
class Admission:
    """Admits runs and lets turns through. A `Scheduler` has one; `capacity` says what its pool can carry."""

    settings: SchedulerSettings
    _runs: Line
    _turns: Line

    def __init__(self, settings: SchedulerSettings, *, capacity: Callable[[], float] | None = None) -> None:
        tenants = {tenant.name: tenant for tenant in settings.tenants}
        self.settings = settings
        self._runs = Line(
            Gate(
                what="run",
                capacity=_at_most(settings.max_runs),
                max_queued=settings.max_queued,
                ageing=settings.ageing,
                tenants=tenants,
                cap_of=lambda tenant: tenant.max_runs,
            )
        )
        given = capacity is None or settings.max_in_flight is not None
        self._turns = Line(
            Gate(
                what="turn",
                capacity=_at_most(settings.max_in_flight) if given or capacity is None else capacity,
                max_queued=settings.max_queued,
                ageing=settings.ageing,
                tenants=tenants,
                cap_of=lambda tenant: tenant.max_in_flight,
                budgets=settings.budgets,
                adaptive=settings.adaptive,
            )
        )

    def __repr__(self) -> str:
        return f"<Admission runs: {self._runs.gate}; turns: {self._turns.gate}>"

    def ticket(
        self,
        *,
        tenant: str | None = None,
        priority: float | None = None,
        deadline: float | None = None,
        parent: Ticket | None = None,
        like: Ticket | None = None,
    ) -> Ticket:
        """Return a ticket for turns outside a run. What is None is that of `like`, or of the run one is in a tool of.

        Raises:
            SettingsError: a value is out of range.
        """
        return make_ticket(
            self,
            parent_of(self, parent),
            like=like,
            tenant=tenant,
            priority=priority,
            deadline=deadline,
            now=trio.current_time(),
        )

    @asynccontextmanager
    async def run(
        self,
        *,
        tenant: str | None = None,
        priority: float | None = None,
        deadline: float | None = None,
        parent: Ticket | None = None,
        like: Ticket | None = None,
    ) -> AsyncIterator[Ticket]:
        """Admit a run for the length of the block. Always a checkpoint.

        Args:
            tenant: whose it is; "default" if nobody says.
            priority: the higher goes first among its tenant's; waiting for `ageing` seconds is worth one level.
            deadline: seconds from now, for the whole block, waiting included.
            parent: the run that waits for this one. Found by itself when called within a tool.
            like: the conversation's own ticket: it says what the arguments leave open, before the parent does.

        Raises:
            AdmissionQueueFull: too many runs wait.
            DeadlineExceeded: the deadline came first. The block was cancelled.
            SettingsError: a value is out of range.
        """
        before = current.get()
        ticket = self.ticket(tenant=tenant, priority=priority, deadline=deadline, parent=parent, like=like)
        await trio.lowlevel.checkpoint()
        with self.within(ticket):
            slot = None if ticket.parent is not None else await self._admit(ticket)
            current.set(ticket)
            try:
                yield ticket
            finally:
                current.set(before)
                ticket.over = True
                if slot is not None:
                    self._runs.leave(slot, None)

    async def _admit(self, ticket: Ticket) -> Waiting:
        await trio.lowlevel.checkpoint()
        now, gate = trio.current_time(), self._runs.gate
        rank = now - ticket.priority * gate.ageing
        slot = Waiting(share=gate.share(ticket.tenant), kind=RUN, cost=1, rank=rank, since=now)
        self._runs.ask(slot, ticket)
        if slot.state is SlotState.WAITING:
            await self._runs.wait(slot, ticket)
        return slot

    def within(self, ticket: Ticket) -> AbstractContextManager[None]:
        """Return a block that is cancelled at the ticket's deadline, unless somebody sees to that already.

        Raises, at the end of the block:
            DeadlineExceeded: the block was cancelled.
        """
        if ticket.deadline == math.inf or ticket.watched:
            return UNWATCHED
        parent = ticket.parent
        if parent is not None and parent.watched and parent.deadline <= ticket.deadline:
            return UNWATCHED
        return _watch(ticket)

    def turn(self, ticket: Ticket, *, model: str, cost: int) -> TurnSlot:
        """Return a slot for one try of a turn. Enter it before a lane is acquired.

        `cost`: tokens that the server will read, remembered or not; what it may answer is added here.

        Raises, when entered:
            AdmissionQueueFull: too many turns wait.
            DeadlineExceeded: it is certain that the turn cannot start before the ticket's deadline.
        """
        now, gate = trio.current_time(), self._turns.gate
        return TurnSlot(
            share=gate.share(ticket.tenant),
            kind=model,
            cost=cost + gate.expected(model),
            rank=now - ticket.priority * gate.ageing,
            since=now,
            ticket=ticket,
            admission=self,
        )

    @contextmanager
    def beside(self, ticket: Ticket, *, model: str, cost: int) -> Iterator[TurnSlot | None]:
        """Give a slot for the length of the block if one is free that nobody waits for; None: there is none.

        For what may be left undone. It waits for nothing, so it may already hold a lane.
        """
        slot = self.turn(ticket, model=model, cost=cost)
        if not self._turns.gate.spare(slot, now=slot.since):
            yield None
            return
        try:
            yield slot
        except BaseException as error:
            self.end_turn(slot, slot._usage, error)
            raise
        self.end_turn(slot, slot._usage, None)

    def ask_turn(self, slot: TurnSlot) -> Line:
        """Ask for a turn's slot. For `TurnSlot` alone."""
        ticket, line = slot.ticket, self._turns
        if ticket.deadline < math.inf:
            earliest = line.gate.earliest(slot.kind, slot.cost, slot.since)
            if earliest >= ticket.deadline:
                raise _exceeded(ticket, "refused", needed=earliest)
        line.ask(slot, ticket)
        return line

    def end_turn(self, slot: TurnSlot, usage: Usage | None, error: BaseException | None) -> None:
        """Take a turn's slot back, and learn from how it went. For `TurnSlot` alone."""
        line = self._turns
        if isinstance(error, PoolError) and too_many(error):
            told = told_wait(error, self.settings.retry_after_max)
            line.wake(line.gate.refused(slot, retry_after=told, now=trio.current_time()))
        else:
            line.leave(slot, usage)

    def stats(self) -> AdmissionStats:
        """Return a frozen snapshot."""
        runs, turns = self._runs.gate, self._turns.gate
        learned = {kind.name: kind.adaptive for kind in turns.kinds.values()}
        return AdmissionStats(
            runs=len(runs.in_flight),
            runs_waiting=len(runs.waiting),
            in_flight=len(turns.in_flight),
            waiting=len(turns.waiting),
            limits={model: one.limit for model, one in learned.items() if one.limit < math.inf},
            cuts=sum(one.cuts for one in learned.values()),
            waits=self._turns.waits.snapshot(),
            run_waits=self._runs.waits.snapshot(),
        )

    def view(self) -> AdmissionView:
        """Return a frozen picture of the turns: who has how many in flight, who waits, which limits are near."""
        return view_of(self._turns.gate, now=trio.current_time())


def _at_most(limit: int | None) -> Callable[[], float]:
    return lambda: math.inf if limit is None else limit


@contextmanager
def _watch(ticket: Ticket) -> Iterator[None]:
    ticket.watched = True
    try:
        with trio.CancelScope(deadline=ticket.deadline) as scope:
            yield
    finally:
        ticket.watched = False
    if scope.cancelled_caught:
        raise _exceeded(ticket, "queued" if ticket.queued else "running")


def _exceeded(
    ticket: Ticket, stage: Literal["refused", "queued", "running"], *, needed: float | None = None
) -> DeadlineExceeded:
    return DeadlineExceeded(
        stage,
        tenant=ticket.tenant,
        allowed=ticket.deadline - ticket.started,
        elapsed=trio.current_time() - ticket.started,
        turns=ticket.turns,
        needed=None if needed is None else needed - ticket.started,
    )

"""One gate and those who wait at it: who is granted is woken, and one of those who wait keeps the time.

Theory of operation
    There is no task here, because a scheduler may live in somebody else's nursery. When something will come due
    (a budget has room again, a wait asked for by the server is over), one of those who wait sleeps until then and
    looks; when it leaves, it wakes another to keep the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import trio
from attrs import define, field

from scheduler.admission.fair import Claim
from scheduler.admission.gate import Gate, Slot, SlotState
from scheduler.admission.ticket import Ticket
from scheduler.admission.waits import Waits
from scheduler.turns import Usage


@define(eq=False)
class Waiting(Slot):
    """A slot, and whoever asked for it."""

    woken: trio.Event | None = field(default=None, init=False)
    waited: float = field(default=0.0, init=False)  # s


@define(eq=False)
class Line:
    """See above."""

    gate: Gate
    waits: Waits = field(factory=Waits, init=False)
    _keeper: Waiting | None = field(default=None, init=False)  # who keeps the time
    _until: float = field(default=math.inf, init=False)  # until when it sleeps

    async def wait(self, slot: Waiting, ticket: Ticket) -> None:
        """Wait until the slot is granted. Cancelled, it is withdrawn, and `ticket.queued` stays as a trace of it."""
        ticket.queued = True
        try:
            while slot.state is SlotState.WAITING:
                await self._sleep(slot)
        except BaseException:
            self.wake(self.gate.withdraw(slot, now=trio.current_time()))
            raise
        finally:
            if self._keeper is slot:
                self._keeper = None
                self._nudge(next(iter(self.gate.waiting), None))
        ticket.queued = False
        slot.waited = trio.current_time() - slot.since
        self.waits.waited(slot.share.name, slot.waited)

    async def _sleep(self, slot: Waiting) -> None:
        slot.woken = trio.Event()
        if self._keeper is None:
            self._keeper = slot
        if self._keeper is not slot:
            await slot.woken.wait()
            return
        self._until = self.gate.next_due()
        with trio.move_on_at(self._until):
            await slot.woken.wait()
        if slot.state is SlotState.WAITING:
            self.wake(self.gate.tick(now=trio.current_time()))

    def ask(self, slot: Waiting, ticket: Ticket) -> None:
        """Ask for the slot; if it has to wait for it, `wait` is next."""
        self.wake(self.gate.ask(slot, now=slot.since))
        if slot.state is SlotState.GRANTED:
            ticket.queued = False
            self.waits.at_once(slot.share.name)

    def leave(self, slot: Waiting, usage: Usage | None) -> None:
        """The slot is free. `usage`: of the turn, if it has completed."""
        now = trio.current_time()
        if usage is None:
            self.wake(self.gate.leave(slot, now=now))
        else:
            tokens, answer = usage.total_tokens, usage.output_tokens
            self.wake(self.gate.leave(slot, tokens=tokens, answer=answer, now=now))

    def wake(self, granted: Iterable[Claim]) -> None:
        """Wake those who were granted, and the keeper when the time has changed."""
        for slot in granted:
            self._nudge(slot)
        if self._keeper is not None and self.gate.next_due() < self._until:
            self._nudge(self._keeper)

    def _nudge(self, slot: Claim | None) -> None:
        if isinstance(slot, Waiting) and slot.woken is not None:
            slot.woken.set()

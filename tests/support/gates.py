"""A gate under one's hands: its clock, short names for what the shell would do, and everything it granted."""

from __future__ import annotations

from attrs import define, field

from scheduler.admission.gate import Gate, Slot, SlotState


@define
class Counter:
    """Where slots are asked for."""

    gate: Gate
    now: float = 0.0
    granted: list[tuple[float, Slot]] = field(factory=list)
    asked: list[Slot] = field(factory=list)

    def ask(self, tenant: str = "a", *, kind: str = "m", cost: int = 1, priority: float = 0.0) -> Slot:
        """Somebody wants a slot."""
        rank = self.now - priority * self.gate.ageing
        slot = Slot(share=self.gate.share(tenant), kind=kind, cost=cost, rank=rank, since=self.now)
        others = self.gate.ask(slot, now=self.now)
        self.asked.append(slot)
        if slot.state is SlotState.GRANTED and slot not in others:
            self.granted.append((self.now, slot))
        self._note(others)
        return slot

    def leave(self, slot: Slot, tokens: int | None = None) -> list[Slot]:
        """A turn has ended."""
        return self._note(self.gate.leave(slot, tokens=tokens, now=self.now))

    def refuse(self, slot: Slot, retry_after: float | None = None) -> list[Slot]:
        """The server refused a turn."""
        return self._note(self.gate.refused(slot, retry_after=retry_after, now=self.now))

    def withdraw(self, slot: Slot) -> list[Slot]:
        """Somebody gives up."""
        return self._note(self.gate.withdraw(slot, now=self.now))

    def pass_time(self, seconds: float) -> None:
        """Let time pass; the gate is asked whenever it wants to be."""
        end = self.now + seconds
        while self.gate.next_due() <= end:
            before, self.now = self.now, max(self.now, self.gate.next_due())
            self._note(self.gate.tick(now=self.now))
            assert self.gate.next_due() > before, "the timer would ring for ever at the same moment"
        self.now = end

    def _note(self, granted: list[Slot]) -> list[Slot]:
        self.granted += [(self.now, slot) for slot in granted]
        return granted

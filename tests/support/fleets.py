"""A scheduler whose conversations do what a test says: fleets without pool or server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from attrs import define, field

from scheduler.admission.shell import Admission
from scheduler.admission.ticket import Ticket
from scheduler.agent import Agent
from scheduler.fleet.fleet import Fleet
from scheduler.scheduler import Scheduler
from scheduler.settings import SchedulerSettings
from scheduler.turns import Turn, TurnRequest
from tests.support.fake_conversation import Given

Behave = Callable[[str, Given], Awaitable[Turn]]


@define(eq=False)
class FakeTurns:
    """One conversation: each turn is `behave(name, given)`."""

    name: str
    behave: Behave
    requests: list[TurnRequest] = field(factory=list)
    closed: bool = False
    ticket: Ticket = field(factory=Ticket)
    tap: None = None

    async def turn(self, given: Given, request: TurnRequest, *, on_event: Any = None) -> Turn:
        self.requests.append(request)
        return await self.behave(self.name, given)

    def close(self) -> None:
        self.closed = True


@define(eq=False)
class FakeScheduler:
    """Makes such conversations and keeps them."""

    behave: Behave
    made: list[FakeTurns] = field(factory=list)
    admission: Admission = field(factory=lambda: Admission(SchedulerSettings()))

    def conversation(self, *, name: str, store: bool) -> FakeTurns:
        self.made.append(FakeTurns(name, self.behave))
        return self.made[-1]


AGENT = Agent(model="m")


def a_fleet(behave: Behave, *, concurrency: int = 4, agent: Agent = AGENT) -> tuple[Fleet, FakeScheduler]:
    scheduler = FakeScheduler(behave)
    return Fleet(agent, cast("Scheduler", scheduler), concurrency=concurrency), scheduler

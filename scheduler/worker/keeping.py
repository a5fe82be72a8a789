"""Keep the steps of one job in the queue while its run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio
from attrs import define, field

from pool.wire.events import Encoded
from scheduler.tools.toolbox import ToolResult
from scheduler.turns import FunctionCall, Turn
from scheduler.worker.drafting import Draft
from scheduler.worker.errors import CheckpointTooLarge, HandedBack
from scheduler.worker.patience import insist
from scheduler.worker.queue import Claim, Queue
from scheduler.worker.seal import Seal
from scheduler.worker.steps import begun_step, draft_step, results_step, turn_step


@define(eq=False)
class JobKeeper:
    """A `Keeper` that appends each step as it is done. `size`: bytes that are there already."""

    queue: Queue
    claim: Claim
    seal: Seal
    limit: int
    stopping: Callable[[], bool]
    on_step: Callable[[], None]
    size: int = 0
    steps: int = 0
    said: Draft = field(factory=Draft, init=False)
    # Tools of one turn end at the same time, and steps are counted.
    _one: trio.StrictFIFOLock = field(factory=trio.StrictFIFOLock, init=False)

    async def ready(self) -> None:
        """Leave the run here if the worker is stopping."""
        await trio.lowlevel.checkpoint()
        if self.stopping():
            raise HandedBack("the worker is stopping")

    def hearing(self) -> Draft:
        """Hear each turn, for those who may follow the job."""
        self.said.begin()
        return self.said

    async def tell(self) -> None:
        """Tell those who follow the job what has been said since they were last told.

        Raises:
            QueueUnavailable: they cannot be told now.
        """
        text = self.said.news()
        if text is not None:
            sealed = self.seal.close(draft_step(text), self.claim.job.id, self.steps)
            await self.queue.draft(self.claim, self.steps, sealed)

    async def turn_ended(self, given: Sequence[Encoded], turn: Turn) -> None:
        """Keep a turn."""
        self.said.begin()
        await self._append(turn_step(given, turn))

    async def call_begins(self, call: FunctionCall) -> None:
        """Keep that a call begins which must not run twice."""
        await self._append(begun_step(call))

    async def calls_ended(self, results: Sequence[ToolResult]) -> None:
        """Keep answers."""
        await self._append(results_step(results))

    async def _append(self, body: bytes) -> None:
        async with self._one:
            if self.size + len(body) > self.limit:
                raise CheckpointTooLarge(self.claim.job.id, size=self.size + len(body), limit=self.limit)
            sealed = self.seal.close(body, self.claim.job.id, self.steps)
            await insist(partial(self.queue.append, self.claim, self.steps, sealed))
            self.steps += 1
            self.size += len(sealed)
        self.on_step()

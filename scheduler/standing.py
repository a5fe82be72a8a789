"""Where one conversation stands: what a turn leaves behind for the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from attrs import define, field

from pool.slots import Hold
from scheduler.chain import Chain
from scheduler.changes import changed
from scheduler.estimate import Average
from scheduler.shared import Shared
from scheduler.turns import Placement, TurnRequest


@define(eq=False)
class Standing:
    """The state of one conversation, which its turns change."""

    name: str
    shared: Shared
    chain: Chain
    hold: Hold = field(init=False)
    near: Hold | None = field(default=None, init=False)  # the parent's, until the first turn of a fork
    placements: list[Placement] = field(factory=list, init=False)
    request: TurnRequest | None = field(default=None, init=False)  # of the last turn
    calls: bool = field(default=False, init=False)  # its response called tools: their outputs will follow
    ended_at: float | None = field(default=None, init=False)  # the last turn
    gap: Average | None = field(default=None, init=False)  # between two turns
    # Ends a move that is under way
    make_way: Callable[[], Awaitable[None]] | None = field(default=None, init=False)
    counted: int = field(default=0, init=False)  # turns of runs that are over
    # How often its prefix changes of late, 0 to 1: then the model reads everything anew, whatever is remembered
    churn: Average = field(factory=lambda: Average(0.0, 0.5), init=False)

    def __attrs_post_init__(self) -> None:
        self.hold = Hold(self.name, self.chain.store)

    @property
    def turns(self) -> int:
        """Turns of the run that is going on."""
        return len(self.placements) - self.counted

    def came_back(self) -> None:
        """A turn begins: count the time that its tools took."""
        if self.ended_at is not None and self.calls and self.request is not None:
            self.shared.recorder.came_back(self.request.model, trio.current_time() - self.ended_at)

    async def wants_lane(self) -> None:
        """A turn has been admitted: learn how long the conversation leaves its lane idle between two, and end a move.

        Its wait for admission is part of that: where many wait, whoever comes back does so much later than its tools.
        """
        if self.ended_at is not None:
            away, everybody = trio.current_time() - self.ended_at, self.shared.estimates.gap
            everybody.add(away)
            if self.gap is None:
                self.gap = Average(away)
            self.gap.add(away)
        if self.make_way is not None:
            await self.make_way()

    def expect(self, tokens: int, request: TurnRequest) -> None:
        """Tell the pool what losing its lane would cost this conversation, with a context of so many tokens."""
        estimates = self.shared.estimates
        self.hold.gap = estimates.gap.value if self.gap is None else self.gap.value
        self.hold.worth = self.keeps * estimates.replay(request.model).of(tokens, stored=self.chain.store)

    @property
    def keeps(self) -> float:
        """The share of what a replay costs that staying on a lane is expected to save."""
        return 1.0 if self.chain.store else 1.0 - self.churn.value

    def turns_to(self, request: TurnRequest) -> tuple[str, ...]:
        """The next turn says this: return what it changes, and expect less of its lane if it does."""
        what = changed(self.request, request)
        if self.request is not None:
            self.churn.add(1.0 if what else 0.0)
        if what and not self.chain.store:
            self.hold.worth = 0.0  # this turn is read anew wherever it goes
        return what

    def leave_lane(self, why: str) -> None:
        """What its lane remembers is of no use any more."""
        self.shared.pool.let_go(self.hold)
        self.hold.lost, self.near = why, None

    def end_run(self) -> None:
        """The run is over: learn how many turns it took."""
        if self.request is not None:
            self.shared.ways.ended(self.request, self.turns)
            if self.turns:
                self.shared.recorder.run_over(self.request.model, self.turns)
            self.counted = len(self.placements)

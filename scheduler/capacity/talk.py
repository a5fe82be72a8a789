"""A conversation in a simulation, and its claims on admission and on a lane. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from pool.slots import Hold, Waiter
from scheduler.admission.gate import Slot
from scheduler.capacity.load import Run
from scheduler.estimate import Average

if TYPE_CHECKING:
    from scheduler.capacity.moves import Leaver, Move, Moves


@define(eq=False)
class Talk:
    """One conversation, as `Standing` and `Conversation` keep it."""

    run: Run
    moves: Moves
    index: int = 0  # of the turn that is next, or under way
    tokens: int = 0  # of the context
    hold: Hold = field(factory=Hold, init=False)
    busy: bool = field(default=False, init=False)  # between a turn's call and its end
    gap: Average | None = field(default=None, init=False)
    ended_at: float | None = field(default=None, init=False)
    called_at: float = field(default=0.0, init=False)
    asked_at: float = field(default=0.0, init=False)  # the present try
    waited: float = field(default=0.0, init=False)  # of all tries of the turn
    tries: int = field(default=1, init=False)
    counted: bool = field(default=False, init=False)  # called within the window
    place: Place | None = field(default=None, init=False)
    move: Move | None = field(default=None, init=False)  # that is under way
    leaver: Leaver = field(init=False)
    stuck: bool = field(default=False, init=False)  # the turn waits for it

    def __attrs_post_init__(self) -> None:
        self.hold.on_leave = self.on_leave
        self.leaver = self.moves.leaver(self)

    def on_leave(self) -> None:
        """The lane is about to go, or has gone. In the middle of a turn that is seen to when it is over."""
        if not self.busy:
            self.moves.begin(self)


@define(eq=False, kw_only=True)
class Seat(Waiter):
    """A turn that waits for a lane, or has it."""

    talk: Talk


@define(eq=False, kw_only=True)
class Place(Slot):
    """A turn that waits for admission, or has it."""

    talk: Talk

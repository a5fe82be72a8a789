"""A chain of turns over a pool: each is placed, sent as a delta where it can be, and recovered where it must."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import trio
from attrs import define, field

from pool.errors import SettingsError
from pool.tap import Tap
from pool.wire.events import Encoded, ServerEvent
from scheduler.admission.ticket import Ticket
from scheduler.attempts import AtOnce, Attempts, OnEvent, OnEvents
from scheduler.chain import Chain, Past, as_items, encode_input
from scheduler.compaction import Compaction, compact
from scheduler.errors import CallsUnanswered, ConversationBusy, SteerRefused
from scheduler.migration import Migration
from scheduler.shared import Shared
from scheduler.standing import Standing
from scheduler.turns import Placement, Steered, Turn, TurnRequest

log = logging.getLogger("warmline.scheduler")


@define(eq=False)
class Conversation:
    """A chain of turns. Made by `Scheduler.conversation`; one turn at a time, forks run in parallel."""

    name: str
    _shared: Shared
    _chain: Chain
    ticket: Ticket = field(repr=False)  # on whose behalf its turns wait; a run puts its own here
    _at: Standing = field(init=False)
    _migration: Migration = field(init=False)
    _busy: bool = field(default=False, init=False)
    _turn: Attempts | None = field(default=None, init=False, repr=False)  # the one that is running

    def __attrs_post_init__(self) -> None:
        self._at = Standing(self.name, self._shared, self._chain)
        self._at.hold.on_leave = self._leave
        self._migration = Migration(at=self._at)
        self._at.make_way = self._migration.make_way

    def __repr__(self) -> str:
        return f"<Conversation {self.name!r} turns={len(self.placements)} items={len(self._chain)} tip={self.tip}>"

    @property
    def placements(self) -> list[Placement]:
        """How each finished turn travelled, and why."""
        return self._at.placements

    @property
    def tip(self) -> str | None:
        """The id of the latest response; None before the first, and after the server has lost it."""
        return self._chain.tip

    @property
    def tap(self) -> Tap | None:
        """Who watches, if anybody does."""
        return self._shared.pool.tap

    @property
    def store(self) -> bool:
        """The server is asked to keep the responses."""
        return self._chain.store

    @property
    def transcript(self) -> Sequence[Mapping[str, Any]]:
        """Every item, input and output, in order, as a replay would send it; a copy, as parsed JSON."""
        return self._chain.items

    @property
    def encoded(self) -> Sequence[Encoded]:
        """The transcript, every item as it would be sent; not a copy."""
        return self._chain.encoded

    @property
    def generation(self) -> int:
        """Counts how often the transcript was replaced, in part or whole, and not only added to."""
        return self._chain.generation

    def begin(self, past: Past) -> None:
        """Take over what was said elsewhere, before the first turn."""
        self._chain.begin(past)
        self._at.hold.lost = past.why

    def fork(self, *, name: str | None = None) -> Conversation:
        """Return a conversation that goes its own way from here; both may run at once.

        Here is where the last turn ended that succeeded: a turn that is running, or was cancelled or refused, is no
        part of it, nor is what has been said to it. To fork what a running turn will say, await it first. Never
        blocks, and may be called at any time, in `on_event` too.
        """
        fork = Conversation(name or f"{self.name}/fork", self._shared, self._chain.fork(), self.ticket)
        # Beside the lane that remembers the same response: a fork that has not spoken yet has none of its own.
        fork._at.near = self._at.near or self._at.hold
        # Where this one would have to replay, so must the fork.
        fork._at.hold.lost = self._at.hold.lost or "forked"
        return fork

    def close(self) -> None:
        """The conversation is over: its lane is free for others. A later turn is a replay if somebody has had it."""
        self._migration.give_up()
        self._shared.pool.let_go(self._at.hold)
        self._at.end_run()

    async def turn(
        self,
        given: str | Sequence[Mapping[str, Any] | Encoded],
        request: TurnRequest,
        *,
        on_event: OnEvent | None = None,
        on_events: OnEvents | None = None,
        at_once: AtOnce | None = None,
        whole: bool = False,
    ) -> Turn:
        """Take one turn: send what is new, and wait for the response.

        What can be recovered is; the transcript changes only when the turn has succeeded, so after an error or a
        cancellation the same turn can be taken again.

        Args:
            given: a text, or input items (a user message, tool outputs ...).
            request: what is said on every turn. Pass the same object each time: it is encoded once.
            on_event: awaited for every event of the server, in order, in this task. After a `Restarted` the
                events begin anew. Without it nobody looks at the deltas, which is much cheaper.
            on_events: the same for all events that are at hand, in one go; give one or the other.
            at_once: beside `on_events`: asked for each delta in the pass of the event loop in which it is read, when
                none waits for `on_events`; returns whether it has taken it. Must neither wait nor raise.
            whole: `given` is the whole history, as the caller keeps it. What it adds to the transcript is sent; if
                it does not go on from there it is a replay (`replay:rewritten`), and the transcript from then on.

        Raises:
            InputInvalid: what is given has no JSON form, half a surrogate pair for instance.
            ResponseFailed: the server refused the request, or the response failed, for good.
            ConnectionLost: lost, and the settings forbid another try, or they are used up.
            DialFailed, PoolSaturated, PoolClosed: no lane is to be had.
            FrameTooLarge: the endpoint's sockets take no message of this size.
            LaneOverflow: `on_event` was too slow for too long.
            ConversationBusy: a turn of this conversation is under way.
            RetryBudgetExceeded: recovery has sent too much again of late.
            AdmissionQueueFull: too many turns wait for a slot.
            DeadlineExceeded: the deadline of the conversation or its run came first, or certainly will.
        """
        if self._busy:
            raise ConversationBusy(self.name)
        new, parted = self._chain.follow(as_items(given)) if whole else (encode_input(given), None)
        if parted is not None:
            log.info("%s: the history given is another from item %d on", self.name, parted)
        self._busy = True
        self._at.came_back()
        listener = on_events or one_by_one(on_event)
        self._turn = Attempts(self._at, self.ticket, new, request, listener, parted is not None, at_once)
        try:
            with self._shared.admission.within(self.ticket):
                return await self._turn.run()
        finally:
            self._turn.steers.end()
            self._busy, self._turn = False, None
            if self._at.hold.leaving or self._at.hold.lost == "rotated":
                self._leave()

    async def steer(self, given: str | Sequence[Mapping[str, Any] | Encoded]) -> Steered:
        """Say something to the turn that is running, from another task; return when that is sure to be heard.

        The server stops the response where it can and goes on with a successor; `turn` returns that one, and its
        `steers` tell what became of what was said. Only some models can be steered, and only on sockets with lanes.
        Cancelling stops the wait; what has been sent may be heard all the same.

        Args:
            given: a text, or messages of the user.

        Raises:
            SteerRefused: there is no turn, it is over, or it cannot be steered.
            InputInvalid: what is given has no JSON form.
            FrameTooLarge: no socket takes a message of this size.
        """
        items, turn = encode_input(given), self._turn
        if turn is None:
            raise SteerRefused("response_not_active", f"no turn of conversation {self.name!r} is running")
        await trio.lowlevel.checkpoint()
        return await turn.steers.steer(items)

    async def compact(self, request: TurnRequest) -> Compaction:
        """Have the server compact the transcript, over HTTP; the conversation goes on from what it returns.

        The next turn is a replay of that window (`replay:compacted`). A failure leaves the transcript as it was.

        Args:
            request: its model and instructions count; a conversation's turns and compactions may share one.

        Raises:
            SettingsError: the endpoint has no HTTP side.
            CallsUnanswered: the model waits for tool outputs.
            ConversationBusy: something else is under way on this conversation.
            PoolError: the server refused, or could not be reached, for good.
            AdmissionQueueFull, DeadlineExceeded: as for a turn; it costs tokens like one.
        """
        shared, chain = self._shared, self._chain
        if shared.http is None:
            raise SettingsError(
                "http_url", None, "compaction goes over HTTP: give the endpoint's base URL there"
            )
        if self._busy:
            raise ConversationBusy(self.name)
        if calls := chain.unanswered:
            raise CallsUnanswered(self.name, calls)
        self._busy = True
        self._migration.give_up()
        try:
            with shared.admission.within(self.ticket):
                done = await compact(
                    chain,
                    request,
                    shared.http,
                    admit=lambda: shared.admission.turn(self.ticket, model=request.model, cost=chain.tokens),
                    settings=shared.settings,
                    rng=shared.rng,
                )
        finally:
            self._busy = False
        self._at.leave_lane("compacted")
        return done

    def _leave(self) -> None:
        """The lane is about to go, or has gone with its connection."""
        if not self._busy:  # asked again when the turn is over
            self._migration.begin(self.ticket)


def one_by_one(on_event: OnEvent | None) -> OnEvents | None:
    """Return a function that hands over events one at a time."""
    if on_event is None:
        return None

    async def hand_over(events: Sequence[ServerEvent]) -> None:
        for event in events:
            await on_event(event)

    return hand_over

"""A chain of turns over a pool: each is placed, sent as a delta where it can be, and recovered where it must."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio
from attrs import define, field, frozen

from pool.errors import PoolError
from pool.exchange import Exchange
from pool.lease import Lease
from pool.pool import Pool
from pool.slots import Hold
from pool.wire.cycle import Finished
from pool.wire.events import Encoded, ResponseCreate, ServerEvent
from scheduler.chain import Chain, Plan, encode_input
from scheduler.errors import ConversationBusy
from scheduler.estimate import Average, Estimates
from scheduler.outcome import calls_of, failure_of, incomplete_reason, text_of, usage_of
from scheduler.recovery import Again, GiveUp, Remedy, recover
from scheduler.request import fields_of
from scheduler.settings import SchedulerSettings
from scheduler.stats import TurnRecorder
from scheduler.turns import Placement, Turn, TurnRequest

log = logging.getLogger("warmline.scheduler")

BYTES_A_TOKEN = 4  # roughly, before the server has counted

OnEvent = Callable[[ServerEvent], Awaitable[None]]


@frozen(kw_only=True)
class Restarted(ServerEvent):
    """The turn starts afresh: forget what its earlier events said. Not from the server; `reason` says why."""

    type: str = "warmline.restarted"
    reason: str = ""


@define(eq=False, kw_only=True)
class Shared:
    """What all conversations of one scheduler share."""

    pool: Pool
    settings: SchedulerSettings
    rng: random.Random
    recorder: TurnRecorder = field(factory=TurnRecorder)
    estimates: Estimates = field(factory=Estimates)
    plain_models: set[str] = field(factory=set)  # models that have no encrypted reasoning to include


@define(eq=False)
class Conversation:
    """A chain of turns. Made by `Scheduler.conversation`; one turn at a time, forks run in parallel."""

    name: str
    _shared: Shared
    _chain: Chain
    placements: list[Placement] = field(factory=list, init=False)  # one a finished turn
    _hold: Hold = field(init=False)
    _near: Hold | None = field(default=None, init=False)  # the parent's, until the first turn of a fork
    _busy: bool = field(default=False, init=False)
    _ended_at: float | None = field(default=None, init=False)  # the last turn
    _gap: Average | None = field(default=None, init=False)  # between two turns

    def __attrs_post_init__(self) -> None:
        self._hold = Hold(self.name)

    def __repr__(self) -> str:
        return f"<Conversation {self.name!r} turns={len(self.placements)} items={len(self._chain)} tip={self.tip}>"

    @property
    def tip(self) -> str | None:
        """The id of the latest response; None before the first, and after the server has lost it."""
        return self._chain.tip

    @property
    def store(self) -> bool:
        """The server is asked to keep the responses."""
        return self._chain.store

    @property
    def transcript(self) -> Sequence[Mapping[str, Any]]:
        """Every item, input and output, in order, as a replay would send it; a copy, as parsed JSON."""
        return self._chain.items

    def fork(self, *, name: str | None = None) -> Conversation:
        """Return a conversation that goes its own way from here; both may run at once."""
        fork = Conversation(name or f"{self.name}/fork", self._shared, self._chain.fork())
        fork._near, fork._hold.lost = self._hold, "forked"
        return fork

    def close(self) -> None:
        """The conversation is over: its lane is free for others. A later turn would be a replay."""
        self._shared.pool.let_go(self._hold)

    async def turn(
        self,
        given: str | Sequence[Mapping[str, Any]],
        request: TurnRequest,
        *,
        on_event: OnEvent | None = None,
    ) -> Turn:
        """Take one turn: send what is new, and wait for the response.

        What can be recovered is; the transcript changes only when the turn has succeeded, so after an error or a
        cancellation the same turn can be taken again.

        Args:
            given: a text, or input items (a user message, tool outputs ...).
            request: what is said on every turn. Pass the same object each time: it is encoded once.
            on_event: awaited for every event of the server, in order, in this task. After a `Restarted` the
                events begin anew. Without it nobody looks at the deltas, which is much cheaper.

        Raises:
            ResponseFailed: the server refused the request, or the response failed, for good.
            ConnectionLost: lost, and the settings forbid another try, or they are used up.
            DialFailed, PoolSaturated, PoolClosed: no lane is to be had.
            FrameTooLarge: the endpoint's sockets take no message of this size.
            LaneOverflow: `on_event` was too slow for too long.
            ConversationBusy: a turn of this conversation is under way.
        """
        if self._busy:
            raise ConversationBusy(self.name)
        self._busy = True
        self._came_back()
        try:
            return await _Attempts(self, encode_input(given), request, on_event).run()
        finally:
            self._busy = False

    def _came_back(self) -> None:
        """Learn how long the conversation stays away between two turns."""
        if self._ended_at is None:
            return
        away, everybody = trio.current_time() - self._ended_at, self._shared.estimates.gap
        everybody.add(away)
        if self._gap is None:
            self._gap = Average(away)
        self._gap.add(away)


@define(eq=False)
class _Attempts:
    """The tries of one turn."""

    conversation: Conversation
    new: Sequence[Encoded]
    request: TurnRequest
    on_event: OnEvent | None
    called_at: float = field(factory=trio.current_time, init=False)
    tries: int = field(default=1, init=False)  # that cost an attempt, and the present one
    free: int = field(default=1, init=False)  # that did not, and the present one
    remedies: set[Remedy] = field(factory=set, init=False)  # already tried
    seen: bool = field(default=False, init=False)  # the caller has been given events of the present try

    async def run(self) -> Turn:
        shared = self.conversation._shared
        while True:
            try:
                return await self._try()
            except PoolError as error:
                action = recover(
                    error,
                    attempts=self.tries,
                    free_attempts=self.free,
                    settings=shared.settings,
                    rng=shared.rng,
                )
                if isinstance(action, GiveUp) or action.remedy in self.remedies:
                    raise
                log.info("%s: again in %.2f s (%s)", self.conversation.name, action.delay, error)
            await self._prepare(action)

    async def _prepare(self, action: Again) -> None:
        self.conversation._shared.recorder.retries[action.reason] += 1
        if action.costs_attempt:
            self.tries += 1
        else:
            self.free += 1
        if action.remedy is not None:
            self.remedies.add(action.remedy)
            self._apply(action.remedy)
        if self.seen and self.on_event is not None:
            self.seen = False
            await self.on_event(Restarted(reason=action.reason))
        await trio.sleep(action.delay)

    def _apply(self, remedy: Remedy) -> None:
        conversation, shared = self.conversation, self.conversation._shared
        match remedy:
            case Remedy.FORGET_TIP:
                conversation._chain.forget_tip()
                conversation._hold.lost = "forgotten"
            case Remedy.SINGLE_LANES:
                shared.pool.downgrade()
            case Remedy.PLAIN_REASONING:
                shared.plain_models.add(self.request.model)
            case Remedy.PLAIN_ITEMS:
                conversation._chain.strip()

    async def _try(self) -> Turn:
        conversation, shared, request = self.conversation, self.conversation._shared, self.request
        chain, hold = conversation._chain, conversation._hold
        lease = await shared.pool.acquire(hold, near=conversation._near, holder=conversation.name)
        try:
            plan = chain.plan(self.new, remembered=lease.remembers(chain.tip), lost=hold.lost)
            hold.lost = None
            create = ResponseCreate(
                input=plan.items,
                previous_response_id=plan.previous_response_id,
                fields=fields_of(
                    request,
                    store=chain.store,
                    encrypted_reasoning=not chain.store and request.model not in shared.plain_models,
                ),
            )
            exchange = await lease.send(create, stream=self.on_event is not None)
            self._expect((exchange.size + plan.bytes_saved) // BYTES_A_TOKEN)
            if self.on_event is not None:
                while events := await exchange.batch():
                    self.seen = True
                    for event in events:
                        await self.on_event(event)
            finished = await exchange.result()
        finally:
            lease.release()
        failure = failure_of(finished)
        if failure is not None:
            raise failure
        self._learn(plan, finished, exchange)
        return self._finish(plan, finished, exchange, lease)

    def _expect(self, tokens: int) -> None:
        """Tell the pool what losing its lane would cost this conversation."""
        conversation, shared = self.conversation, self.conversation._shared
        hold, gap = conversation._hold, conversation._gap
        hold.gap = shared.estimates.gap.value if gap is None else gap.value
        hold.worth = shared.estimates.replay(self.request.model).of(tokens, stored=conversation.store)

    def _learn(self, plan: Plan, finished: Finished, exchange: Exchange) -> None:
        conversation, estimates = self.conversation, self.conversation._shared.estimates
        tokens = usage_of(finished.response).total_tokens
        if exchange.first_output_at is not None:
            seconds = exchange.first_output_at - exchange.sent_at
            estimates.replay(self.request.model).saw(plan.reason, tokens=tokens, seconds=seconds)
        self._expect(tokens)
        conversation._ended_at = trio.current_time()

    def _finish(self, plan: Plan, finished: Finished, exchange: Exchange, lease: Lease) -> Turn:
        conversation, output = self.conversation, finished.output
        assert finished.response_id is not None
        assert exchange.first_event_at is not None
        usage, calls = usage_of(finished.response), calls_of(output)
        conversation._chain.commit(self.new, output, finished.response_id, tokens=usage.total_tokens)
        conversation._near = None
        turn = Turn(
            response_id=finished.response_id,
            status="completed" if finished.status == "completed" else "incomplete",
            incomplete_reason=incomplete_reason(finished.response),
            output=output,
            text=text_of(output),
            calls=calls,
            usage=usage,
            placement=Placement(
                kind=plan.kind,
                reason=plan.reason,
                connection=lease.connection_name,
                lane=lease.lane_name,
                bytes_sent=exchange.size,
                bytes_saved=plan.bytes_saved,
                tokens_saved=plan.tokens_saved,
                waited=lease.waited,
                replay_cost=conversation._hold.worth,
                damage=lease.damage,
            ),
            first_event=exchange.first_event_at - self.called_at,
            seconds=trio.current_time() - self.called_at,
            attempts=self.tries + self.free - 1,
            payload=finished.response,
        )
        conversation.placements.append(turn.placement)
        conversation._shared.recorder.turn(turn)
        return turn

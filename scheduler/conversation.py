"""A chain of turns over a pool: each is placed, sent as a delta where it can be, and recovered where it must."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio
from attrs import define, evolve, field, frozen

from pool.errors import PoolError, SettingsError
from pool.http import HttpClient
from pool.pool import Pool
from pool.slots import Hold
from pool.wire.cycle import Finished
from pool.wire.events import Encoded, ResponseCreate, ServerEvent
from scheduler.admission.shell import Admission
from scheduler.admission.ticket import Ticket
from scheduler.budget import ReplayBudget
from scheduler.chain import Chain, Plan, encode_input
from scheduler.compaction import Compaction, compact
from scheduler.errors import CallsUnanswered, ConversationBusy, RetryBudgetExceeded
from scheduler.estimate import Average, Estimates
from scheduler.migration import Migration, Movers
from scheduler.outcome import calls_of, failure_of, incomplete_reason, text_of, usage_of
from scheduler.recovery import Again, GiveUp, Remedy, recover
from scheduler.request import fields_of
from scheduler.settings import SchedulerSettings
from scheduler.stats import TurnRecorder
from scheduler.turns import Placement, Turn, TurnRequest
from scheduler.ways import FALLBACK, OVERSIZE, Carrier, Reply, Ways

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
    admission: Admission
    http: HttpClient | None = None
    estimates: Estimates = field(factory=Estimates)
    plain_models: set[str] = field(factory=set)  # models that have no encrypted reasoning to include
    budget: ReplayBudget = field(init=False)
    recorder: TurnRecorder = field(init=False)
    ways: Ways = field(init=False)
    movers: Movers = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.budget = ReplayBudget(self.settings.replay_budget)
        self.recorder = TurnRecorder(self.budget)
        self.ways = Ways(self.pool, self.http, self.settings.transport, self.estimates)
        self.movers = Movers(self.pool, trio.CapacityLimiter(self.settings.moves))

    def fields(self, request: TurnRequest, *, store: bool) -> Encoded:
        """Return what every create of this request says."""
        plain = store or request.model in self.plain_models
        return fields_of(request, store=store, encrypted_reasoning=not plain)


@define(eq=False)
class Conversation:
    """A chain of turns. Made by `Scheduler.conversation`; one turn at a time, forks run in parallel."""

    name: str
    _shared: Shared
    _chain: Chain
    ticket: Ticket = field(repr=False)  # on whose behalf its turns wait; a run puts its own here
    placements: list[Placement] = field(factory=list, init=False)  # one a finished turn
    _hold: Hold = field(init=False)
    _near: Hold | None = field(default=None, init=False)  # the parent's, until the first turn of a fork
    _busy: bool = field(default=False, init=False)
    _ended_at: float | None = field(default=None, init=False)  # the last turn
    _gap: Average | None = field(default=None, init=False)  # between two turns
    _counted: int = field(default=0, init=False)  # turns of runs that are over
    _request: TurnRequest | None = field(default=None, init=False)  # of the last turn
    _calls: bool = field(default=False, init=False)  # its response called tools: their outputs will follow
    _migration: Migration = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._hold = Hold(self.name)
        self._hold.on_leave = self._leave
        self._migration = Migration(self.name, self._chain, self._shared.movers, self._moved)

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
        fork = Conversation(name or f"{self.name}/fork", self._shared, self._chain.fork(), self.ticket)
        fork._near, fork._hold.lost = self._hold, "forked"
        return fork

    def close(self) -> None:
        """The conversation is over: its lane is free for others. A later turn would be a replay."""
        self._migration.give_up()
        self._shared.pool.let_go(self._hold)
        if self._request is not None:
            self._shared.ways.ended(self._request, len(self.placements) - self._counted)
            self._counted = len(self.placements)

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
            RetryBudgetExceeded: recovery has sent too much again of late.
            AdmissionQueueFull: too many turns wait for a slot.
            DeadlineExceeded: the deadline of the conversation or its run came first, or certainly will.
        """
        if self._busy:
            raise ConversationBusy(self.name)
        self._busy = True
        self._came_back()
        try:
            await self._migration.make_way(needed=self._hold.lane is None)
            with self._shared.admission.within(self.ticket):
                return await _Attempts(self, encode_input(given), request, on_event).run()
        finally:
            self._busy = False
            if self._hold.leaving:
                self._leave()

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
            done = await compact(chain, request, shared.http, settings=shared.settings, rng=shared.rng)
        finally:
            self._busy = False
        self._left_its_lane("compacted")
        return done

    def _leave(self) -> None:
        """The lane is about to go, or has gone with its connection: find another while nobody waits for it."""
        if self._busy or self._request is None:
            return  # asked again when the turn is over
        if self._calls and not self.store and self._chain.asked:
            self._migration.begin(self._shared.fields(self._request, store=False))
        else:
            self._shared.pool.let_go(self._hold, why="rotated")

    def _moved(self, hold: Hold) -> None:
        """Another lane remembers the conversation now."""
        old, self._hold = self._hold, hold
        hold.worth, hold.gap = old.worth, old.gap
        hold.on_leave, old.on_leave = old.on_leave, None
        self._shared.pool.let_go(old, why="moved")

    def _left_its_lane(self, why: str) -> None:
        """What its lane remembers is of no use any more."""
        self._shared.pool.let_go(self._hold)
        self._hold.lost, self._near = why, None

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
    forced: str | None = field(default=None, init=False)  # why the turn must go over HTTP from now on
    over_http: str | None = field(default=None, init=False)  # why the present try goes over HTTP, if it does

    async def run(self) -> Turn:
        shared = self.conversation._shared
        while True:
            try:
                return await self._admitted()
            except PoolError as error:
                action = recover(
                    error,
                    attempts=self.tries,
                    free_attempts=self.free,
                    settings=shared.settings,
                    rng=shared.rng,
                    over=shared.ways.over(self.over_http),
                )
                if isinstance(action, GiveUp) or action.remedy in self.remedies:
                    raise
                delay = max(action.delay, self._charge(action, error))
                log.info("%s: again in %.2f s (%s)", self.conversation.name, delay, error)
            await self._prepare(action, delay)

    def _charge(self, action: Again, error: PoolError) -> float:
        """Pay for what is about to be sent again; return the seconds until the budget allows it."""
        shared, chain = self.conversation._shared, self.conversation._chain
        if not action.resend:
            return 0.0
        now, limit = trio.current_time(), shared.settings.retry_after_max
        wait = shared.budget.wait(now)
        if wait > limit:
            raise RetryBudgetExceeded(wait=wait, limit=shared.budget.per_minute) from error
        stored = chain.store and chain.tip is not None
        context = 0 if stored else chain.tokens
        shared.budget.spend(context + sum(map(len, self.new)) // BYTES_A_TOKEN, now)
        return wait

    async def _prepare(self, action: Again, delay: float) -> None:
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
        await trio.sleep(delay)

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
            case Remedy.OVERSIZE:
                self.forced = OVERSIZE
            case Remedy.FALLBACK:
                self.forced = FALLBACK
            case Remedy.NO_HTTP:
                self.forced = None
                shared.ways.no_http()

    def _way(self, fields: Encoded) -> AbstractAsyncContextManager[Carrier]:
        """Choose between a lane and HTTP, and return the right to it."""
        conversation, ways = self.conversation, self.conversation._shared.ways
        chain, hold = conversation._chain, conversation._hold
        delta = chain.tip is not None and (
            chain.store or hold.lane is not None or conversation._near is not None
        )
        self.over_http = self.forced or ways.choose(
            self.request,
            hold,
            size=sum(map(len, self.new)) + len(fields) + (0 if delta else chain.size),
            tokens=chain.tokens,
            stored=chain.store,
            done=len(conversation.placements) - conversation._counted,
        )
        if self.over_http is not None:
            return ways.line()
        return ways.lane(hold, near=conversation._near, holder=conversation.name)

    async def _admitted(self) -> Turn:
        ticket, admission = self.conversation.ticket, self.conversation._shared.admission
        async with admission.turn(ticket, model=self.request.model, cost=self._cost()) as slot:
            turn = await self._try()
            slot.completed(turn.usage)
            return turn

    def _cost(self) -> int:
        """Estimate the tokens that the server will read, remembered or not."""
        chain = self.conversation._chain
        size = sum(map(len, self.new))
        if not chain.tokens:
            size += len(self.conversation._shared.fields(self.request, store=chain.store))
        return chain.tokens + size // BYTES_A_TOKEN

    async def _try(self) -> Turn:
        conversation, shared, request = self.conversation, self.conversation._shared, self.request
        chain, hold = conversation._chain, conversation._hold
        fields = shared.fields(request, store=chain.store)
        async with self._way(fields) as lease:
            plan = chain.plan(self.new, remembered=lease.remembers(chain.tip), lost=hold.lost)
            if self.over_http is not None:
                plan = evolve(plan, reason=self.over_http)
            else:
                hold.lost = None
            create = ResponseCreate(
                input=plan.items, previous_response_id=plan.previous_response_id, fields=fields
            )
            exchange = await lease.send(create, stream=self.on_event is not None)
            self._expect((exchange.size + plan.bytes_saved) // BYTES_A_TOKEN)
            if self.on_event is not None:
                while events := await exchange.batch():
                    self.seen = True
                    for event in events:
                        await self.on_event(event)
            finished = await exchange.result()
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

    def _learn(self, plan: Plan, finished: Finished, exchange: Reply) -> None:
        conversation, shared = self.conversation, self.conversation._shared
        tokens = usage_of(finished.response).total_tokens
        if exchange.first_output_at is not None:
            seconds = exchange.first_output_at - exchange.sent_at
            if self.over_http is None:
                shared.estimates.replay(self.request.model).saw(plan.reason, tokens=tokens, seconds=seconds)
            else:
                stored = plan.kind == "delta"
                shared.ways.took(self.request, tokens=tokens, stored=stored, seconds=seconds)
        self._expect(tokens)
        conversation._ended_at = trio.current_time()

    def _finish(self, plan: Plan, finished: Finished, exchange: Reply, lease: Carrier) -> Turn:
        conversation, output = self.conversation, finished.output
        assert finished.response_id is not None
        assert exchange.first_event_at is not None
        usage, calls = usage_of(finished.response), calls_of(output)
        conversation._chain.commit(self.new, output, finished.response_id, tokens=usage.total_tokens)
        conversation._near, conversation._request, conversation._calls = None, self.request, bool(calls)
        if self.over_http is not None:
            conversation._left_its_lane("http")
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

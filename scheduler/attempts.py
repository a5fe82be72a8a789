"""One turn, from the call to its end: placed, sent, and tried again where `recovery` says so."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import trio
from attrs import define, evolve, field, frozen

from pool.errors import PoolError
from pool.exchange import Exchange
from pool.wire.cycle import Finished
from pool.wire.events import Encoded, ResponseCreate, ServerEvent
from scheduler.admission.ticket import Ticket
from scheduler.chain import Plan
from scheduler.errors import RetryBudgetExceeded
from scheduler.outcome import calls_of, failure_of, incomplete_reason, text_of, usage_of
from scheduler.recovery import Again, GiveUp, Remedy, recover
from scheduler.standing import Standing
from scheduler.steering import Steers
from scheduler.turns import Placement, Turn, TurnRequest, Usage
from scheduler.ways import FALLBACK, OVERSIZE, Carrier, Reply, Way

log = logging.getLogger("warmline.scheduler")

BYTES_A_TOKEN = 4  # roughly, before the server has counted

OnEvent = Callable[[ServerEvent], Awaitable[None]]
OnEvents = Callable[[Sequence[ServerEvent]], Awaitable[None]]
AtOnce = Callable[[ServerEvent], bool]


@frozen(kw_only=True)
class Restarted(ServerEvent):
    """The turn starts afresh: forget what its earlier events said. Not from the server; `reason` says why."""

    type: str = "warmline.restarted"
    reason: str = ""


@define(eq=False)
class Attempts:
    """The tries of one turn."""

    at: Standing
    ticket: Ticket  # on whose behalf it waits
    new: Sequence[Encoded]
    request: TurnRequest
    on_events: OnEvents | None
    rewritten: bool = False  # what is new takes the transcript's place
    at_once: AtOnce | None = None  # takes deltas on the spot, see `Exchange`
    steers: Steers = field(factory=Steers, init=False)  # what is said while it runs
    changes: tuple[str, ...] = field(default=(), init=False)  # what it says differently from the turn before
    called_at: float = field(factory=trio.current_time, init=False)
    tries: int = field(default=1, init=False)  # that cost an attempt, and the present one
    free: int = field(default=1, init=False)  # that did not, and the present one
    remedies: set[Remedy] = field(factory=set, init=False)  # already tried
    seen: bool = field(default=False, init=False)  # the caller has been given events of the present try
    forced: str | None = field(default=None, init=False)  # why the turn must go over HTTP from now on
    way: Way = field(factory=Way, init=False)  # the present try's
    replay_cost: float = field(default=0.0, init=False)  # s, as expected when the present try was placed
    size: int = field(init=False)  # bytes of what is new, which may be very many items

    def __attrs_post_init__(self) -> None:
        self.size = sum(map(len, self.new))

    async def run(self) -> Turn:
        shared, self.changes = self.at.shared, self.at.turns_to(self.request)
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
                    over=shared.ways.over(self.way.over_http),
                )
                if isinstance(action, GiveUp) or action.remedy in self.remedies:
                    self._note(
                        "failed",
                        error=error,
                        kind=type(error).__name__,
                        seconds=trio.current_time() - self.called_at,
                    )
                    raise
                delay = max(action.delay, self._charge(action, error))
                log.info("%s: again in %.2f s (%s)", self.at.name, delay, error)
                self._note("retry", reason=action.reason, delay=delay, error=error)
            await self._prepare(action, delay)

    def _charge(self, action: Again, error: PoolError) -> float:
        """Pay for what is about to be sent again; return the seconds until the budget allows it."""
        shared, chain = self.at.shared, self.at.chain
        if not action.resend:
            return 0.0
        now, limit = trio.current_time(), shared.settings.retry_after_max
        wait = shared.budget.wait(now)
        if wait > limit:
            raise RetryBudgetExceeded(wait=wait, limit=shared.budget.per_minute) from error
        stored = chain.store and chain.tip is not None
        context = 0 if stored else chain.tokens
        shared.budget.spend(context + self.size // BYTES_A_TOKEN, now)
        return wait

    async def _prepare(self, action: Again, delay: float) -> None:
        self.at.shared.recorder.retries.add(action.reason)
        if action.costs_attempt:
            self.tries += 1
        else:
            self.free += 1
        if action.remedy is not None:
            self.remedies.add(action.remedy)
            self._apply(action.remedy)
        if self.seen and self.on_events is not None:
            self.seen = False
            await self.on_events([Restarted(reason=action.reason)])
        await trio.sleep(delay)

    def _apply(self, remedy: Remedy) -> None:
        at, shared = self.at, self.at.shared
        match remedy:
            case Remedy.FORGET_TIP:
                at.chain.forget_tip()
                at.hold.lost = "forgotten"
            case Remedy.SINGLE_LANES:
                shared.pool.downgrade()
            case Remedy.PLAIN_REASONING:
                shared.plain_models.add(self.request.model)
            case Remedy.PLAIN_ITEMS:
                at.chain.strip()
            case Remedy.OVERSIZE:
                self.forced = OVERSIZE
            case Remedy.FALLBACK:
                self.forced = FALLBACK
            case Remedy.NO_HTTP:
                self.forced = None
                shared.ways.no_http()

    def _way(self, fields: Encoded) -> AbstractAsyncContextManager[Carrier]:
        """Choose between a lane and HTTP, and return the right to it."""
        ways, chain, hold = self.at.shared.ways, self.at.chain, self.at.hold
        delta = chain.tip is not None and (chain.store or hold.lane is not None or self.at.near is not None)
        if self.forced is not None or self.request.generate is False:  # which exists on sockets alone
            self.way = Way(over_http=None if self.request.generate is False else self.forced)
        else:
            self.way = ways.choose(
                self.request,
                hold,
                size=self.size + len(fields) + (0 if delta else chain.size),
                tokens=chain.tokens,
                stored=chain.store,
                keeps=self.at.keeps,
                done=self.at.turns,
            )
        self.replay_cost = hold.worth
        if self.way.over_http is not None:
            return ways.line(holder=self.at.name)
        return ways.lane(hold, near=self.at.near, holder=self.at.name, model=self.request.model)

    async def _admitted(self) -> Turn:
        async with self.at.shared.admission.turn(
            self.ticket, model=self.request.model, cost=self._cost()
        ) as slot:
            if slot.waited:
                self._note("admitted", waited=slot.waited, tenant=self.ticket.tenant)
            if self.tries == self.free == 1:
                await self.at.wants_lane()
            turn = await self._try()
            slot.completed(turn.usage)
            return turn

    def _cost(self) -> int:
        """Estimate the tokens that the server will read, remembered or not."""
        chain = self.at.chain
        size = self.size
        if not chain.tokens:
            size += len(self.at.shared.fields(self.request, store=chain.store))
        return chain.tokens + size // BYTES_A_TOKEN

    async def _try(self) -> Turn:
        shared, chain, hold = self.at.shared, self.at.chain, self.at.hold
        fields = shared.fields(self.request, store=chain.store)
        async with self._way(fields) as lease:
            if self.steers.all:
                self.new = [*self.new, *self.steers.fold()]
                self.size = sum(map(len, self.new))
            plan = chain.plan(
                self.new, remembered=lease.remembers(chain.tip), lost=hold.lost, rewritten=self.rewritten
            )
            if self.way.over_http is not None:
                plan = evolve(plan, reason=self.way.over_http)
            else:
                hold.lost = None
            create = ResponseCreate(
                input=plan.items,
                previous_response_id=plan.previous_response_id,
                generate=self.request.generate,
                fields=fields,
            )
            self._placed(plan, lease)
            exchange = await lease.send(create, stream=self.on_events is not None)
            if plan.previous_response_id is not None:
                chain.continued()
            if isinstance(exchange, Exchange):
                exchange.at_once = self.at_once
            self.steers.sent(lease, exchange)
            try:
                self.at.expect((exchange.size + plan.bytes_saved) // BYTES_A_TOKEN, self.request)
                if self.on_events is not None:
                    while events := await exchange.batch():
                        self.seen = True
                        await self.on_events(events)
                finished = await exchange.result()
            finally:
                self.steers.idle()
        failure = failure_of(finished, time.time())
        if failure is not None:
            raise failure
        usage = usage_of(finished.response)
        self._learn(plan, usage.total_tokens, exchange)
        return self._finish(plan, finished, usage, exchange, lease)

    def _note(self, what: str, **facts: object) -> None:
        tap = self.at.shared.pool.tap
        if tap is not None:
            tap.note(what, conv=self.at.name, **facts)

    def _placed(self, plan: Plan, lease: Carrier) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s, turn %d: %s", self.at.name, len(self.at.placements) + 1, self._why(plan, lease))
        if self.at.shared.pool.tap is not None:
            self._note(
                "placed",
                lane=lease.lane_name,
                kind=plan.kind,
                reason=plan.reason,
                turn=len(self.at.placements) + 1,
                tenant=self.ticket.tenant,
                model=self.request.model,
                waited=lease.waited,
                replay_cost=self.replay_cost,
                damage=lease.damage,
                http_cost=self.way.http_cost,
                dial_cost=self.way.dial_cost,
                saved=plan.bytes_saved,
            )

    def _why(self, plan: Plan, lease: Carrier) -> str:
        """Say where the turn goes, and what was weighed."""
        costs = [f"waited {lease.waited:.3f} s", f"a replay costs {self.replay_cost:.3f} s"]
        if lease.damage:
            costs.append(f"its owner loses {lease.damage:.3f} s")
        if self.way.dial_cost:
            costs.append(f"over HTTP {self.way.http_cost:.3f} s, a dial {self.way.dial_cost:.3f} s")
        return f"{plan.kind}, {plan.reason}, on {lease.lane_name} ({'; '.join(costs)})"

    def _taken(self, turn: Turn) -> None:
        if self.at.shared.pool.tap is not None:
            self._note(
                "turn",
                turn=len(self.at.placements),
                lane=turn.placement.lane,
                response=turn.response_id,
                status=turn.status,
                first_event=turn.first_event,
                seconds=turn.seconds,
                attempts=turn.attempts,
                input_tokens=turn.usage.input_tokens,
                cached_tokens=turn.usage.cached_tokens,
                output_tokens=turn.usage.output_tokens,
                calls=[call.name for call in turn.calls],
            )

    def _learn(self, plan: Plan, tokens: int, exchange: Reply) -> None:
        at, shared = self.at, self.at.shared
        if exchange.first_output_at is not None:
            seconds = exchange.first_output_at - exchange.sent_at
            if self.way.over_http is None:
                # On a lane that remembers it, a changed prefix is read anew all the same.
                reason = "replay:changed" if self.changes and plan.reason == "hot" else plan.reason
                shared.estimates.replay(self.request.model).saw(reason, tokens=tokens, seconds=seconds)
            else:
                stored = plan.kind == "delta"
                shared.ways.took(self.request, tokens=tokens, stored=stored, seconds=seconds)
        at.expect(tokens, self.request)
        at.ended_at = trio.current_time()

    def _finish(self, plan: Plan, finished: Finished, usage: Usage, exchange: Reply, lease: Carrier) -> Turn:
        at, output = self.at, finished.output
        assert finished.response_id is not None
        assert exchange.first_event_at is not None
        calls = calls_of(output)
        at.chain.commit(
            self.new,
            output,
            finished.response_id,
            tokens=usage.total_tokens,
            rewritten=self.rewritten,
            steered=self.steers.stages(finished),
            queued=self.steers.queued(finished),
        )
        at.near, at.request, at.calls = None, self.request, bool(calls)
        if self.way.over_http is not None:
            at.leave_lane("http")
        turn = Turn(
            response_id=finished.response_id,
            status="completed" if finished.status == "completed" else "incomplete",
            incomplete_reason=incomplete_reason(finished.response),
            output=output,
            text=text_of(output),
            calls=calls,
            usage=sum((usage_of(one.response) for one in finished.before), start=usage),
            placement=Placement(
                kind=plan.kind,
                reason=plan.reason,
                connection=lease.connection_name,
                lane=lease.lane_name,
                bytes_sent=exchange.size,
                bytes_saved=plan.bytes_saved,
                tokens_saved=plan.tokens_saved,
                waited=lease.waited,
                replay_cost=self.replay_cost,
                damage=lease.damage,
                http_cost=self.way.http_cost,
                dial_cost=self.way.dial_cost,
            ),
            first_event=exchange.first_event_at - self.called_at,
            seconds=trio.current_time() - self.called_at,
            attempts=self.tries + self.free - 1,
            payload=finished.response,
            steers=self.steers.outcomes(finished),
        )
        at.placements.append(turn.placement)
        output_at = exchange.first_output_at
        at.shared.recorder.turn(
            turn,
            model=self.request.model,
            waited=exchange.sent_at - self.called_at,
            first_token=None if output_at is None else output_at - self.called_at,
        )
        for what in self.changes:
            at.shared.recorder.changes.add(what)
        for complaint in at.shared.watch.saw(plan.reason, self.changes):
            log.warning("%s", complaint)
        self._taken(turn)
        return turn

"""From a checked request to a turn: lineage, context, faults, cost. Knows no transport."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from pool.body_budget import BodyBudget
from pool.emulator.context import Context
from pool.emulator.faults import Fault, FaultPlan, Kind
from pool.emulator.memory import ConnectionMemory, Remembered, Store
from pool.emulator.plan import Plan, plan_turn
from pool.emulator.playback import Answer, Place, Playback
from pool.emulator.prompt_cache import PromptCache
from pool.emulator.request import Request
from pool.emulator.response import response_object
from pool.emulator.sealed import unseal
from pool.emulator.settings import EmulatorSettings
from pool.emulator.stats import EmulatorStats
from pool.emulator.turn import Turn
from pool.wire.codec import to_json
from pool.wire.refusal import (
    Refused,
    invalid_value,
    item_not_found,
    missing_parameter,
    previous_response_not_found,
)


@frozen(kw_only=True)
class Prepared:
    """A turn that can begin, what goes wrong with it, and the seconds before its first event."""

    turn: Turn
    faults: tuple[Fault, ...]
    wait: float
    recorded: Answer | None = None  # follow its timing
    place: Place | None = None  # of it in the schedule

    def fault(self, kind: Kind) -> Fault | None:
        """Return the fault of this kind, if it fires."""
        return next((fault for fault in self.faults if fault.kind is kind), None)


@define(eq=False)
class Service:
    """The part of the emulator that all its connections share."""

    settings: EmulatorSettings
    unix_time: Callable[[], int]  # seconds
    nonce: str  # makes the ids of one emulator differ from every other's
    stats: EmulatorStats = field(init=False, factory=EmulatorStats)
    store: Store = field(init=False, factory=Store)
    faults: FaultPlan = field(init=False)
    playback: Playback | None = field(init=False, default=None)
    prompts: PromptCache = field(init=False)
    bodies: BodyBudget = field(init=False)  # of HTTP requests that are read or answered
    _creates: int = field(init=False, default=0)
    _ids: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.bodies = BodyBudget(self.settings.bodies_cap, self.settings.bodies_cap)
        if self.settings.schedule is not None:
            self.playback = Playback(self.settings.schedule)
        self.faults = FaultPlan(self.settings.faults, random.Random(self.settings.seed))
        self.prompts = PromptCache(self.settings.prompt_cache)

    def new_id(self, prefix: str) -> str:
        """Return an id that no other emulator gives."""
        self._ids += 1
        mark = hashlib.sha256(f"{self.nonce}:{self._ids}".encode()).hexdigest()
        return f"{prefix}_{mark[:32] if prefix == 'steer' else mark[:48]}"

    def prepare(
        self, request: Request, *, connection: int, memory: ConnectionMemory | None, lane: str | None = None
    ) -> Prepared:
        """Assemble the context and decide the turn. Raises `Refused`; the caller then evicts."""
        self._creates += 1
        create = self._creates
        if "emulator" not in request.raw.get("metadata", {}):
            request = evolve(request, script=self.settings.default_script)
        parent, hydrated = self._parent(request, memory)
        start = Context() if parent is None else parent.context
        context = start.extended(self.resolved(request.input))
        if request.generate:
            context.require_answers()
        faults = self.faults.on_create(
            connection=connection,
            create=create,
            turn=context.tool_turns + 1,
            context=context.digest,
            asked=request.script.faults,
        )
        for fault in faults:
            _refuse(fault, request)
        place, recorded = None, None
        if self.playback is not None and request.generate:
            place = self.playback.place(request)
            recorded = self.playback.answer(place)
        if recorded is not None:
            request = evolve(request, script=recorded.script(request.script))
        self._count(request, parent, hydrated, memory, lane)
        turn = self._turn(request, context, parent, faults)
        wait = self.settings.latency.before_first(
            uncached=turn.input_tokens - turn.cached_tokens, hydrated=hydrated
        )
        if recorded is not None:
            wait = recorded.first
        return Prepared(turn=turn, faults=faults, wait=wait, recorded=recorded, place=place)

    def assembled(self, request: Request) -> tuple[Context, list[Mapping[str, Any]]]:
        """Return the whole context of a request that may only build on stored responses, and its own items."""
        parent, _ = self._parent(request, None)
        items = self.resolved(request.input)
        return (Context() if parent is None else parent.context).extended(items), items

    def _parent(self, request: Request, memory: ConnectionMemory | None) -> tuple[Remembered | None, bool]:
        """Return the parent, and whether it had to come from the store."""
        wanted = request.previous_response_id
        if wanted is None:
            return None, False
        found = memory.find(wanted) if memory else None
        if found is not None:
            return found, False
        found = self.store.find(wanted)
        if found is None:
            raise previous_response_not_found(wanted)
        return found, True

    def resolved(self, items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Replace references by the stored items, and check what claims to be encrypted by us."""
        resolved: list[Mapping[str, Any]] = []
        for index, item in enumerate(items):
            kind = item.get("type")
            if kind == "item_reference":
                resolved.append(self._stored(item.get("id"), index))
                continue
            if kind in ("reasoning", "compaction"):
                sealed = item.get("encrypted_content")
                if not sealed and kind == "reasoning":
                    self._stored(item.get("id"), index)
                elif not sealed:
                    raise missing_parameter(f"input[{index}].encrypted_content")
                elif not isinstance(sealed, str) or unseal(sealed) is None:
                    raise Refused(
                        f"The encrypted content for item {item.get('id')} could not be verified.",
                        code="invalid_encrypted_content",
                        param="input",
                    )
            resolved.append(item)
        return resolved

    def _stored(self, item_id: object, index: int) -> Mapping[str, Any]:
        if not isinstance(item_id, str) or not item_id:
            raise missing_parameter(f"input[{index}].id")
        found = self.store.item(item_id)
        if found is None:
            raise item_not_found(item_id)
        return found

    def _count(
        self,
        request: Request,
        parent: Remembered | None,
        hydrated: bool,
        memory: ConnectionMemory | None,
        lane: str | None,
    ) -> None:
        stats = self.stats
        stats.responses += 1
        stats.warm_ups += not request.generate
        if parent is None:
            stats.replays += 1
        elif hydrated:
            stats.hydrations += 1
        else:
            stats.deltas += 1
            stats.forks += memory is not None and not memory.holds(lane, parent.response_id)

    def _turn(
        self, request: Request, context: Context, parent: Remembered | None, faults: tuple[Fault, ...]
    ) -> Turn:
        by_kind = {fault.kind: fault for fault in faults}
        huge, failed = by_kind.get(Kind.HUGE), by_kind.get(Kind.FAILED)
        prefix = to_json([request.instructions, request.tools])
        prefix_tokens = -(-len(prefix) // 4)
        fingerprint = hashlib.blake2b(prefix, digest_size=16).digest()
        input_tokens = context.tokens + prefix_tokens
        same = parent is not None and parent.prefix == fingerprint
        if parent is None:
            cached = self.prompts.found(fingerprint, request.input, prefix_tokens)
        else:
            cached = min(parent.context.tokens + prefix_tokens, input_tokens) if same else 0
        now = self.unix_time()
        base = response_object(
            request, response_id=self.new_id("resp"), created_at=now, context=context.digest
        )
        plan = Plan()
        if request.generate:
            plan = plan_turn(
                context, request, seed=self.settings.seed, least_bytes=0 if huge is None else huge.bytes
            )
        threshold = request.compact_threshold
        return Turn(
            request=request,
            context=context,
            plan=plan,
            base=base,
            now=now,
            input_tokens=input_tokens,
            cached_tokens=cached,
            prefix=fingerprint,
            compact=threshold is not None and context.count > 1 and input_tokens > threshold,
            empty_terminal=Kind.EMPTY in by_kind,
            fail_at=None if failed is None else failed.at,
        )

    def keep(self, prepared: Prepared) -> None:
        """Store a turn that ended, when its request asked for that."""
        turn = prepared.turn
        ended = turn.terminal
        assert ended is not None
        if self.playback is not None and prepared.place is not None and turn.remembered is not None:
            self.playback.said(prepared.place, turn.id, turn.output)
        if turn.remembered is None:
            self.stats.failed += 1
        else:
            self.stats.completed += 1
            self.prompts.keep(turn.remembered.prefix, turn.remembered.context)
        if turn.request.store:
            self.store.keep(turn.remembered, ended)

    def left(self, prepared: Prepared) -> None:
        """Nobody listens to this turn any more."""
        turn = prepared.turn
        if self.playback is not None and prepared.place is not None and turn.remembered is None:
            self.playback.unsaid(prepared.place, turn.request)

    def steered(self, request: Request, steering: Iterable[Mapping[str, Any]]) -> Request:
        """Return the request with steering input that was waiting for it before its own."""
        return evolve(request, input=[*steering, *request.input])

    def successor(self, turn: Turn, steering: Iterable[Mapping[str, Any]]) -> Request:
        """Return the request that follows a steered turn by itself: its settings, and the steering input."""
        raw = {**turn.request.raw, "previous_response_id": turn.id}
        return evolve(turn.request, raw=raw, input=list(steering), previous_response_id=turn.id)


def _refuse(fault: Fault, request: Request) -> None:
    """Raise what a fault makes the server say instead of a response."""
    if fault.kind is Kind.RATE_LIMIT:
        after = "" if fault.retry_after is None else f" Please try again in {fault.retry_after:g}s."
        raise Refused(
            f"Rate limit reached for {request.model} on tokens per min (TPM).{after}",
            status=429,
            kind="tokens",
            code="rate_limit_exceeded",
            retry_after=fault.retry_after,
        )
    if fault.kind is Kind.ERROR and fault.status >= 500:
        overloaded = fault.status == 503
        raise Refused(
            "Our servers are currently overloaded. Please try again later."
            if overloaded
            else "The server had an error while processing your request. Sorry about that!",
            status=fault.status,
            kind="service_unavailable_error" if overloaded else "server_error",
            code="server_is_overloaded" if overloaded else None,
            retry_after=fault.retry_after,
        )
    if fault.kind is Kind.ERROR:
        refusal = invalid_value("input", "Invalid value: the emulator was told to refuse this request.")
        refusal.status = fault.status
        raise refusal
    if fault.kind is Kind.FORGET and request.previous_response_id is not None:
        raise previous_response_not_found(request.previous_response_id)

"""One turn of one client: the conversation that it goes on from, the turn, and what is remembered of it.

Theory of operation
    A request either names its parent, or brings its history, or begins something new. Whatever it is, the library
    says from which response the turn goes on and how much of what the client sent it covers; the rest is new.

    The conversation that stands at that point takes the turn, and then stands at the new point. While it does, or
    when it has gone on already, another turn from the same point is a branch: a fork where the parent may still be
    remembered upstream, else a conversation that begins with the transcript up to there. A turn that fails or is cut
    off changes nothing: its conversation stands where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from pool.wire.events import Encoded
from pool.wire.refusal import invalid_type, previous_response_not_found
from scheduler.attempts import AtOnce, OnEvents
from scheduler.chain import Past
from scheduler.conversation import Conversation
from scheduler.gateway.asked import Asked
from scheduler.gateway.keys import Caller
from scheduler.gateway.library import Library, Page, Point, start, walk
from scheduler.gateway.marks import Mark, Marks, digest, mark
from scheduler.gateway.upstreams import Upstream, Upstreams
from scheduler.turns import Turn


@frozen(kw_only=True)
class Place:
    """Where a turn begins: the response that it goes on from, if there is one, and what it adds."""

    point: Point | None
    head: bytes
    items: Sequence[Encoded]
    marks: Sequence[Mark]


@define(eq=False)
class Core:
    """Takes the turns of all clients."""

    upstreams: Upstreams
    library: Library
    running: set[Conversation] = field(factory=set, init=False)  # that have a turn under way
    _marks: Marks = field(factory=Marks, init=False)
    # Turns from there are under way
    _busy: dict[Point, tuple[Upstream, Conversation]] = field(factory=dict, init=False)

    def remembers(self, caller: Caller, response_id: str) -> bool:
        """The gateway can go on from this response, whatever the server still knows of it."""
        return self.library.by_id(caller.id, response_id) is not None

    def foreign(self, caller: Caller, response_id: str) -> bool:
        """Whether the response is another caller's, to whom the gateway lends the same key of its own.

        The server would let this one have it. Whether callers with keys of their own share anything is for it to say.
        """
        owner = self.library.owner_of(response_id)
        return caller.secret is None and owner is not None and owner != caller.id

    def place(self, caller: Caller, asked: Asked) -> Place:
        """Say where a turn begins.

        Raises:
            Refused: the gateway does not remember the parent, or an item is no JSON object.
        """
        items = asked.items or ()
        try:
            marks: Sequence[Mark] = [self._marks.of(item) for item in items]
        except ValueError:
            raise invalid_type("input", "an array of objects", list(items)) from None
        point: Point | None
        covered = 0
        if asked.previous_response_id is not None:
            point = self.library.by_id(caller.id, asked.previous_response_id)
            if point is None:
                raise previous_response_not_found(asked.previous_response_id)
        else:
            marks = self.library.resolved(caller.id, marks)
            point, covered = self.library.find(caller.id, asked.model, marks)
        head = start(caller.id, asked.model) if point is None else point.heads[0]
        return Place(point=point, head=head, items=items[covered:], marks=marks[covered:])

    async def turn(
        self,
        caller: Caller,
        asked: Asked,
        *,
        hear: OnEvents | None = None,
        at_once: AtOnce | None = None,
        began: Callable[[Conversation], None] | None = None,
    ) -> Turn:
        """Take a turn for a client; `hear` is given the server's events as they come, and `Restarted`.

        `at_once` may take deltas before that, see `Conversation.turn`. `began` is given the conversation that takes
        the turn, which may be steered until it is over.

        Raises:
            Refused: the gateway does not remember the parent, or has too many callers.
            PoolError: as `Conversation.turn`.
            SchedulerError: likewise.
        """
        async with self.upstreams.use(caller) as upstream:
            place = self.place(caller, asked)
            point = place.point
            conversation = self._conversation(caller, asked, place, upstream)
            known, generation = len(conversation.encoded), conversation.generation
            if point is not None:
                self.library.touch(point)
                self._busy[point] = upstream, conversation
            done: Point | None = None
            self.running.add(conversation)
            if began is not None:
                began(conversation)
            try:
                turn = await conversation.turn(
                    list(place.items), asked.request(), on_events=hear, at_once=at_once
                )
                same = conversation.generation == generation
                done = self._remember(caller, asked, place, turn, conversation, known if same else None)
                return turn
            finally:
                self.running.discard(conversation)
                if point is not None and self._busy.get(point) == (upstream, conversation):
                    del self._busy[point]
                self._leave(upstream, conversation, done or point)

    def _conversation(self, caller: Caller, asked: Asked, place: Place, upstream: Upstream) -> Conversation:
        """Return a conversation that goes on from a place."""
        point = place.point
        if point is not None and point.store == asked.stored:
            standing = upstream.take(point)
            if standing is not None:
                return standing
            owner, busy = self._busy.get(point, (None, None))
            if busy is not None and owner is upstream:
                return busy.fork()
        past = None
        if point is not None:
            tip = point.response_id if point.store and asked.stored else None
            past = Past(items=point.page.transcript, tip=tip, tokens=point.tokens, why="branched")
        return upstream.scheduler.conversation(
            store=asked.stored, tenant=caller.tenant, priority=caller.priority, past=past
        )

    def _remember(
        self,
        caller: Caller,
        asked: Asked,
        place: Place,
        turn: Turn,
        conversation: Conversation,
        known: int | None,
    ) -> Point:
        """Remember a finished turn. `known`: items of the transcript before it; None when they were replaced."""
        output = [mark(item) for item in turn.output]
        head, evidence = walk(place.head, [*place.marks, *output])
        heads = [head]
        cut = max((i for i, item in enumerate(turn.output) if item.get("type") == "compaction"), default=None)
        if cut is not None:  # a client may drop what came before
            short, more = walk(start(caller.id, asked.model), output[cut:])
            heads.append(short)
            evidence |= more
        if turn.steers:
            # Between its input and its output stands what was said meanwhile: no history of a client's has that.
            heads = [digest(head, turn.response_id.encode())]
        before = place.point.page if place.point is not None and known is not None else None
        page = Page(before, tuple(conversation.encoded[known or 0 :]), frozenset(evidence))
        point = Point(
            owner=caller.id,
            response_id=turn.response_id,
            model=asked.model,
            heads=tuple(heads),
            page=page,
            store=asked.stored,
            tokens=turn.usage.total_tokens,
            warm_up=asked.generate is False,
            items=_by_id(turn.output, output) if asked.stored else {},
        )
        for gone in self.library.add(point):
            if gone.live is not None:
                gone.live.upstream.drop(gone)
        return point

    def _leave(self, upstream: Upstream, conversation: Conversation, point: Point | None) -> None:
        """Let a conversation stand where it stands; where one stands already, or nobody can find it, it ends."""
        found = point is not None and self.library.by_id(point.owner, point.response_id) is point
        if found and point is not None and point.live is None:
            upstream.put(point, conversation)
        else:
            conversation.close()


def _by_id(items: Sequence[Mapping[str, Any]], marks: Sequence[Mark]) -> dict[str, Mark]:
    found = ((item.get("id"), one) for item, one in zip(items, marks, strict=True))
    return {name: one for name, one in found if isinstance(name, str)}

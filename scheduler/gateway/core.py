"""One turn of one client: the conversation that it goes on from, the turn, and what is remembered of it.

Theory of operation
    A request either names its parent, or brings its history, or begins something new. Whatever it is, the library
    says from which response the turn goes on and how much of what the client sent it covers; the rest is new.

    The conversation that stands at that point takes the turn, and then stands at the new point. While it does, or
    when it has gone on already, another turn from the same point is a branch: a fork where the parent may still be
    remembered upstream, else a conversation that begins with the transcript up to there. A turn that fails or is cut
    off changes nothing: its conversation stands where it stood.

    What the library does not know may be on disk, where there is a spool; from there it comes back into the library.

    What takes time in proportion to what a client sends is done in slices, between which everything else runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import trio
from attrs import define, evolve, field, frozen

from pool.wire.events import Encoded
from pool.wire.refusal import Refused, invalid_type, previous_response_not_found
from pool.wire.slices import Meter
from scheduler.attempts import AtOnce, OnEvents
from scheduler.chain import Past
from scheduler.conversation import Conversation
from scheduler.gateway.access import EVERYTHING
from scheduler.gateway.asked import Asked, Bounds, reading
from scheduler.gateway.keys import Caller
from scheduler.gateway.library import History, Library, Page, Point, following, start, walking
from scheduler.gateway.marks import Mark, Marks, digest, marking
from scheduler.gateway.ownership import Ownership
from scheduler.gateway.references import References, Searched, created_with, searching
from scheduler.gateway.slices import Slices
from scheduler.gateway.spool import Spool
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
    ownership: Ownership
    spool: Spool | None = None
    bounds: Bounds = field(factory=Bounds)
    slices: Slices = field(factory=Slices)
    # Another process may be asked next: what is told is on disk
    leaving: bool = field(default=False, init=False)
    running: set[Conversation] = field(factory=set, init=False)  # that have a turn under way
    _marks: Marks = field(factory=Marks, init=False)
    _references: References = field(factory=References, init=False)
    # Turns from there are under way
    _busy: dict[Point, tuple[Upstream, Conversation]] = field(factory=dict, init=False)

    async def read(self, caller: Caller, text: bytes) -> Asked:
        """Read a create as it may go upstream. A checkpoint only where that takes long.

        Raises:
            Refused: see `read_create`; or it names what is not the caller's.
        """
        return await self._checked(caller, await self.slices.run(reading(text, self.bounds)))

    async def search(self, caller: Caller, text: bytes) -> Searched:
        """Return JSON as it may go upstream for a caller with a virtual key: what was searched, written anew.

        Raises:
            Refused: it is no JSON, or names what is not the caller's.
        """
        try:
            found = await self.slices.run(searching(text, Meter()))
        except (ValueError, RecursionError) as error:
            raise unreadable(error) from None
        for denied in await self.denied(caller, found.ids):
            raise not_yours(denied)
        return found

    async def remembers(self, caller: Caller, response_id: str) -> bool:
        """The gateway can go on from this response, whatever the server still knows of it."""
        return await self._recall(caller, response_id) is not None

    async def denied(self, caller: Caller, names: Collection[str]) -> list[str]:
        """Return those of the server's resources that a caller may not name, by their ids.

        With a virtual key a caller has what it created and what the key's configuration names, and with all endpoints
        (`*`) everything that is not known to be another's. A caller with a key of its own, or one that shares the
        gateway's with everybody (`open`), has whatever the server gives.
        """
        if caller.key is None:
            return []
        owner_of, granted = self.ownership.owner_of, caller.key.resources
        asked = [one for one in names if one not in granted and owner_of(one) != caller.id]
        unknown = [one for one in asked if owner_of(one) is None]
        known = await self.spool.owners(caller.id, unknown) if unknown and self.spool is not None else {}
        anything = EVERYTHING in caller.key.endpoints
        return [one for one in asked if not known.get(one, anything and owner_of(one) is None)]

    async def _checked(self, caller: Caller, asked: Asked) -> Asked:
        """Return a create as it may go upstream for a caller with a virtual key: what was searched, written anew."""
        if caller.key is None:
            return asked
        texts = [*asked.members.values(), *(asked.items or ())]
        try:
            found = await self.slices.run(self._references.of_all(texts))
            names = frozenset(asked.named).union(*(ids for ids, _ in found))
        except (ValueError, RecursionError) as error:
            raise unreadable(error) from None
        for denied in await self.denied(caller, names):
            raise not_yours(denied)
        again = [text for _, text in found]
        count = len(asked.members)
        return evolve(
            asked,
            members=dict(zip(asked.members, again[:count], strict=True)),
            items=None if asked.items is None else again[count:],
        )

    def created(self, caller: Caller, names: Iterable[str]) -> None:
        """A caller to whom the gateway lends its key has created these."""
        names = list(names)
        if caller.key is not None and names:
            self.ownership.note(caller.id, names)
            if self.spool is not None:
                self.spool.note(caller.id, names)

    def forget(self, caller: Caller, response_id: str) -> None:
        """The caller has the response deleted: nothing goes on from it any more. Later responses stay."""
        point = self.library.by_id(caller.id, response_id)
        if point is not None:
            self.library.drop(point)
            self._gone([point])
        if self.spool is not None:
            self.spool.forget(caller.id, response_id)

    async def _recall(self, caller: Caller, response_id: str) -> Point | None:
        point = self.library.by_id(caller.id, response_id)
        if point is None and self.spool is not None:
            restored = await self.spool.recall(caller.id, response_id)
            point = None if restored is None else self._restore(restored)
        return point

    def _restore(self, point: Point) -> Point:
        """Bring a point back into the library; if somebody was quicker, return the one that is there."""
        there = self.library.by_id(point.owner, point.response_id)
        if there is not None:
            return there
        self._shelve(point)
        return point

    def _shelve(self, point: Point) -> None:
        """Put a point into the library, and what has to go for it where it belongs."""
        gone = self.library.add(point)
        self._gone(gone)
        if self.spool is not None:
            for one in gone:
                self.spool.keep(one)

    def _gone(self, points: Iterable[Point]) -> None:
        """Points have left the library: no conversation stands there any more."""
        for point in points:
            if point.live is not None:
                point.live.upstream.drop(point)

    async def place(self, caller: Caller, asked: Asked) -> Place:
        """Say where a turn begins.

        Raises:
            Refused: the gateway does not remember the parent, or an item is no JSON object.
        """
        items = asked.items or ()
        try:
            marks: Sequence[Mark] = await self.slices.run(self._marks.of_all(items))
        except ValueError:
            raise invalid_type("input", "an array of objects", list(items)) from None
        point: Point | None
        covered = 0
        if asked.previous_response_id is not None:
            point = await self._recall(caller, asked.previous_response_id)
            if point is None:
                raise previous_response_not_found(asked.previous_response_id)
        else:
            marks = await self._resolved(caller, marks)
            history = await self.slices.run(following(caller.id, asked.model, marks))
            point, covered = await self._found(history)
        head = start(caller.id, asked.model) if point is None else point.heads[0]
        return Place(point=point, head=head, items=items[covered:], marks=marks[covered:])

    async def _resolved(self, caller: Caller, marks: Sequence[Mark]) -> Sequence[Mark]:
        """Put the marks of items in the place of references to them, where they are known."""
        marks = self.library.resolved(caller.id, marks)
        if self.spool is None:
            return marks
        names = [one.refers_to for one in marks if one.refers_to is not None]
        if not names:
            return marks
        known = await self.spool.marks(caller.id, names)
        return [known.get(one.refers_to, one) if one.refers_to is not None else one for one in marks]

    async def _found(self, history: History) -> tuple[Point | None, int]:
        """Return the point that a history goes on from, and how many of its items stand before that."""
        point, covered = await self.slices.run(self.library.finding(history))
        if self.spool is None or not any(one.said for one in history.marks[covered:]):
            return point, covered  # a point stands after what a model has said: there is no later one
        found = await self.spool.find(history, covered)
        point, covered = await self.slices.run(self.library.finding(history))  # it may have changed meanwhile
        if found is not None and found[1] > covered:
            return self._restore(found[0]), found[1]
        return point, covered

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
            place = await self.place(caller, asked)
            point = place.point
            conversation = await self._conversation(caller, asked, place, upstream)
            known, generation = len(conversation.encoded), conversation.generation
            if point is not None:
                self.library.touch(point)
                if self.spool is not None:
                    self.spool.used(point)
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
                with trio.CancelScope(
                    shield=True
                ):  # the conversation has gone on: so must what is known of it
                    done = await self._remember(
                        caller, asked, place, turn, conversation, known if same else None
                    )
                if self.spool is not None and self.leaving:
                    await self.spool.flush()
                return turn
            finally:
                self.running.discard(conversation)
                if point is not None and self._busy.get(point) == (upstream, conversation):
                    del self._busy[point]
                self._leave(upstream, conversation, done or point)

    async def _conversation(
        self, caller: Caller, asked: Asked, place: Place, upstream: Upstream
    ) -> Conversation:
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
            why, point.restored = "resumed" if point.restored else "branched", False
            items = await self.slices.run(point.page.gathering())
            past = Past(items=items, tip=tip, tokens=point.tokens, why=why)
        return upstream.scheduler.conversation(
            store=asked.stored, tenant=caller.tenant, priority=caller.priority, past=past
        )

    async def _remember(
        self,
        caller: Caller,
        asked: Asked,
        place: Place,
        turn: Turn,
        conversation: Conversation,
        known: int | None,
    ) -> Point:
        """Remember a finished turn. `known`: items of the transcript before it; None when they were replaced."""
        run, meter = self.slices.run, Meter()
        output = [await run(marking(item, meter)) for item in turn.output]
        head, evidence = await run(walking(place.head, [*place.marks, *output], meter))
        heads = [head]
        cut = max((i for i, item in enumerate(turn.output) if item.get("type") == "compaction"), default=None)
        if cut is not None:  # a client may drop what came before
            short, more = await run(walking(start(caller.id, asked.model), output[cut:], meter))
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
        if self.spool is not None:
            self.spool.keep(point)
        self._shelve(point)
        if caller.key is not None:
            self._own(caller, turn)
        return point

    def _own(self, caller: Caller, turn: Turn) -> None:
        """A turn has created its response, the items of that, and what they were made in."""
        items = {item.get("id") for item in turn.output}
        names = [turn.response_id, *(name for item in turn.output for name in created_with(item))]
        self.ownership.note(caller.id, names)
        if self.spool is not None:  # it has the response and its items by themselves
            self.spool.note(caller.id, [name for name in names[1:] if name not in items])

    def _leave(self, upstream: Upstream, conversation: Conversation, point: Point | None) -> None:
        """Let a conversation stand where it stands; where one stands already, or nobody can find it, it ends."""
        found = point is not None and self.library.by_id(point.owner, point.response_id) is point
        if found and point is not None and point.live is None:
            upstream.put(point, conversation)
        else:
            conversation.close()


def unreadable(error: Exception) -> Refused:
    """JSON in which the ids cannot be found."""
    return Refused(
        f"The request's JSON cannot be read: {str(error)[:200] or 'it is nested too deeply'}.",
        code="invalid_json",
    )


def not_yours(name: str) -> Refused:
    """Something that is not the caller's, or that the server does not have: a caller cannot tell which."""
    return Refused(
        f"No resource with id '{name[:200]}' is found for this key: a key may name what it has created, and what the "
        "gateway's configuration lists in its `resources`.",
        status=404,
        code="resource_not_found",
    )


def _by_id(items: Sequence[Mapping[str, Any]], marks: Sequence[Mark]) -> dict[str, Mark]:
    found = ((item.get("id"), one) for item, one in zip(items, marks, strict=True))
    return {name: one for name, one in found if isinstance(name, str)}

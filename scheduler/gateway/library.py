"""What the gateway remembers: every response it served lately, and how its transcript went. Pure.

Theory of operation
    Each response that ended well is a point in a tree. Its page holds what its turn added to the transcript, and
    points to the page before; so the two branches of a fork share what they have in common, and a point is all that
    is needed to go on from any response, the latest of its conversation or not.

    A point is found by its response id, or by its history. For that the marks of a transcript's items are folded into
    one hash, item by item; the longest beginning of a given history whose hash is a known point's is what the
    gateway has already. Reasoning is not part of the hash, because clients may leave it out, but where a client
    gives it, it must be what stood in that place: evidence is kept with the hash of all that went before.

    A history that only says again what is known, with nothing new, is no continuation of it: something has to be
    new, or the client asks for the same turn once more. Only after a warm-up, which had no answer, it goes on.

    Whoever asks is part of every hash and every id, and so is the model of every hash: nothing is ever found across
    them. Memory is bounded in bytes and in points; what was not used for longest goes first. The pages of a point
    that is gone stay as long as later points build on them. What is gone from here may still be on disk (`spool`).

    What takes time in proportion to a history, or to what was said before, is done in slices (`pool.wire.slices`).
    A search is given up when too many points turn out to have had other reasoning: then the history is new.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field

from pool.wire.events import Encoded
from pool.wire.slices import Meter, Sliced, at_once
from scheduler.gateway.marks import Mark, digest

POINT_SIZE = 1700  # bytes, about, of a point and its page beside their items (measured)
ITEM_SIZE = 350  # likewise of an item beside its text
MOST_TRIED = 16  # points whose reasoning is compared with that of a history
MOST_ALIKE = 64  # points that are found by one and the same history; the latest
RELEASED = 1000  # pages that are let go at a time
_AT_A_TIME = 500  # items that are hashed, or places that are looked at, in one slice
# Units of work: for an item to be hashed, a page, a piece of reasoning to be compared
_HASHED, _PAGE, _COMPARED = 2000.0, 300.0, 100.0


@define(eq=False)
class Page:
    """What one turn added to a transcript."""

    before: Page | None
    items: tuple[Encoded, ...]
    evidence: frozenset[bytes] = frozenset()
    name: bytes | None = None  # on disk, once it has been there
    uses: int = field(default=0, init=False)  # points and later pages
    size: int = field(init=False)  # bytes

    def __attrs_post_init__(self) -> None:
        self.size = POINT_SIZE + sum(len(item) + ITEM_SIZE for item in self.items)

    def __iter__(self) -> Iterator[Page]:
        page: Page | None = self
        while page is not None:
            yield page
            page = page.before

    @property
    def transcript(self) -> list[Encoded]:
        """Every item up to here."""
        return at_once(self.gathering())

    def gathering(self) -> Sliced[list[Encoded]]:
        """Return every item up to here, in slices."""
        meter, pages, items = Meter(), list[Page](), list[Encoded]()
        for page in self:
            pages.append(page)
            if meter.full(_PAGE):
                yield
        while pages:
            found = pages.pop().items
            items += found
            if meter.full(_PAGE + 10 * len(found)):
                yield
        return items


@define(eq=False, kw_only=True)
class Point:
    """One response that was served. `heads`: hashes that a history leading here can have."""

    owner: str
    response_id: str
    model: str
    heads: tuple[bytes, ...]
    page: Page
    store: bool  # the server was to keep it
    tokens: int = 0  # of the context, as the server counted
    items: Mapping[str, Mark] = field(factory=dict)  # of its output, by their ids: clients may refer to them
    warm_up: bool = False
    kept_at: float | None = None  # on disk, when it was last written or read there (trio's clock)
    restored: bool = False  # from disk: no conversation of this process has stood here yet
    live: Any = field(
        default=None
    )  # the conversation that stands here, if one does; whoever put it there knows

    def evidence(self) -> Iterator[frozenset[bytes]]:
        """Give the evidence of the reasoning on each of its pages."""
        return (page.evidence for page in self.page)


@define(eq=False)
class History:
    """What a client sent, as a way through the tree of points. Made by `following` where it may be long."""

    owner: str
    model: str
    marks: Sequence[Mark]
    # Hashes of its beginnings, by how many items they have; and where its reasoning is, with the evidence to look for
    heads: Sequence[bytes] = ()
    thoughts: Sequence[tuple[int, bytes]] = ()

    def __attrs_post_init__(self) -> None:
        if not self.heads:
            self.heads, self.thoughts = at_once(_folded(self.owner, self.model, self.marks))

    def counts(self, beyond: int = 0) -> Iterator[int]:
        """Say of which beginnings a point can be the end, by how many items they have; the longest first."""
        for count in range(len(self.marks), beyond, -1):
            if self.marks[count - 1].digest:  # else it is found from the item before it
                yield count

    def may_end(self, count: int, *, warm_up: bool) -> bool:
        """Whether something new is asked after a point that is found after `count`, reasoning aside."""
        return count < len(self.marks) or warm_up

    def covered(
        self, count: int, evidence: Callable[[], Iterable[frozenset[bytes]]], *, warm_up: bool
    ) -> int | None:
        """Return how many items stand before a point that is found after `count`, with the reasoning there.

        None when it is no point to go on from: some reasoning is not ours, or nothing new is asked. `evidence`
        returns that of the point's pages.
        """
        return at_once(self.covering(count, evidence, Meter(), warm_up=warm_up))

    def covering(
        self,
        count: int,
        evidence: Callable[[], Iterable[frozenset[bytes]]],
        meter: Meter,
        *,
        warm_up: bool,
    ) -> Sliced[int | None]:
        """Do the same in slices."""
        if self.thoughts:
            known = set[bytes]()
            for some in evidence():
                known |= some
                if meter.full(_PAGE + _COMPARED * len(some)):
                    yield
            if meter.full(_COMPARED * len(self.thoughts)):
                yield
            for index, sign in self.thoughts:
                ours = sign in known
                if index < count and not ours:
                    return None
                if index == count and ours:
                    count += 1
        return count if self.may_end(count, warm_up=warm_up) else None


def following(owner: str, model: str, marks: Sequence[Mark]) -> Sliced[History]:
    """Return the history of items with these marks, in slices."""
    heads, thoughts = yield from _folded(owner, model, marks)
    return History(owner, model, marks, heads, thoughts)


def _folded(
    owner: str, model: str, marks: Sequence[Mark]
) -> Sliced[tuple[list[bytes], list[tuple[int, bytes]]]]:
    head = start(owner, model)
    heads, thoughts = [head], list[tuple[int, bytes]]()
    for index, one in enumerate(marks, 1):
        head = step(head, one)
        heads.append(head)
        if not one.digest:
            thoughts.append((index - 1, digest(head, one.evidence[0])))
        if not index % _AT_A_TIME:
            yield
    return heads, thoughts


@define(eq=False)
class Library:
    """The points of all callers. `max_bytes` and `max_points` bound it."""

    max_bytes: int
    max_points: int
    size: int = field(default=0, init=False)  # bytes
    evicted: int = field(default=0, init=False)
    _points: OrderedDict[tuple[str, str], Point] = field(factory=OrderedDict, init=False)  # oldest use first
    _heads: dict[bytes, list[Point]] = field(factory=dict, init=False)
    _items: dict[tuple[str, str], Mark] = field(factory=dict, init=False)
    _leaving: list[Page] = field(
        factory=list, init=False
    )  # each with a use that is over, but not taken off it yet

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points.values())

    def by_id(self, owner: str, response_id: str) -> Point | None:
        """Return the point of a response of this caller."""
        return self._points.get((owner, response_id))

    def resolved(self, owner: str, marks: Sequence[Mark]) -> Sequence[Mark]:
        """Put the marks of items in the place of references to them, where they are known."""
        if not any(one.refers_to for one in marks):
            return marks
        return [
            self._items.get((owner, one.refers_to), one) if one.refers_to is not None else one
            for one in marks
        ]

    def find(self, history: History) -> tuple[Point | None, int]:
        """Return the latest point that a history goes on from, and how many of its items stand before that."""
        return at_once(self.finding(history))

    def finding(self, history: History) -> Sliced[tuple[Point | None, int]]:
        """Do the same in slices; what is found is there when it is returned."""
        meter, tried = Meter(), 0
        for looked, count in enumerate(history.counts(), 1):
            if not looked % _AT_A_TIME:
                yield
            for point in tuple(self._heads.get(history.heads[count], ())):
                if not history.may_end(count, warm_up=point.warm_up):
                    continue
                covered = yield from history.covering(count, point.evidence, meter, warm_up=point.warm_up)
                if self.by_id(point.owner, point.response_id) is not point:
                    continue  # it has gone meanwhile
                if covered is not None:
                    return point, covered
                tried += 1
                if tried == MOST_TRIED:
                    return None, 0
        return None, 0

    def add(self, point: Point) -> list[Point]:
        """Remember a point; return those that had to go for it."""
        gone = [point] if not self._keep(point) else []
        self._release()
        while self._points and (
            (self.size > self.max_bytes and not self._leaving) or len(self._points) > self.max_points
        ):
            oldest = next(iter(self._points.values()))
            self.drop(oldest)
            self.evicted += 1
            gone.append(oldest)
        return gone

    def _keep(self, point: Point) -> bool:
        known = self._points.get((point.owner, point.response_id))
        if known is not None:  # a server that gives an id twice: the later one counts
            self.drop(known)
        self._points[point.owner, point.response_id] = point
        self._items.update({(point.owner, name): one for name, one in point.items.items()})
        for head in point.heads:
            alike = self._heads.setdefault(head, [])
            alike.insert(0, point)
            del alike[MOST_ALIKE:]
        self._hold(point.page)
        return True

    def _hold(self, page: Page) -> None:
        for one in page:
            one.uses += 1
            if one.uses > 1:
                return  # and so is everything before it
            self.size += one.size

    def touch(self, point: Point) -> None:
        """A point is used: it goes last."""
        if (point.owner, point.response_id) in self._points:
            self._points.move_to_end((point.owner, point.response_id))

    def drop(self, point: Point) -> None:
        """Forget a point."""
        del self._points[point.owner, point.response_id]
        for name in point.items:
            self._items.pop((point.owner, name), None)
        for head in point.heads:
            found = self._heads.get(head, [])
            if point in found:
                found.remove(point)
            if not found:
                self._heads.pop(head, None)
        self._leaving.append(point.page)
        self._release()

    def _release(self) -> None:
        """Let go of pages that nothing uses any more; so many at a time, of which a conversation may have more."""
        left = RELEASED
        while self._leaving and left:
            page = self._leaving.pop()
            page.uses -= 1
            left -= 1
            if not page.uses:
                self.size -= page.size
                if page.before is not None:
                    self._leaving.append(page.before)


def start(owner: str, model: str) -> bytes:
    """Return the hash of an empty history."""
    return digest(b"%d:" % len(owner), owner.encode(), model.encode())


def step(head: bytes, one: Mark) -> bytes:
    """Return the hash of a history with one more item."""
    return digest(head, one.digest) if one.digest else head


def walk(head: bytes, marks: Sequence[Mark]) -> tuple[bytes, set[bytes]]:
    """Return the hash of a history with some more items, and the evidence of the reasoning among them."""
    return at_once(walking(head, marks, Meter()))


def walking(head: bytes, marks: Sequence[Mark], meter: Meter) -> Sliced[tuple[bytes, set[bytes]]]:
    """Do the same in slices."""
    evidence: set[bytes] = set()
    for one in marks:
        head = step(head, one)
        evidence.update(digest(head, proof) for proof in one.evidence)
        if meter.full(_HASHED * (1 + len(one.evidence))):
            yield
    return head, evidence

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
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field

from pool.wire.events import Encoded
from scheduler.gateway.marks import Mark, digest

POINT_SIZE = 1700  # bytes, about, of a point and its page beside their items (measured)
ITEM_SIZE = 350  # likewise of an item beside its text


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
        return [item for page in reversed(list(self)) for item in page.items]


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
    """What a client sent, as a way through the tree of points."""

    owner: str
    model: str
    marks: Sequence[Mark]
    heads: Sequence[bytes] = field(init=False)  # of its beginnings, by how many items they have
    _thoughts: Sequence[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        heads = [start(self.owner, self.model)]
        for one in self.marks:
            heads.append(step(heads[-1], one))
        self.heads = heads
        self._thoughts = [index for index, one in enumerate(self.marks) if not one.digest]

    def counts(self, beyond: int = 0) -> Iterator[int]:
        """Say of which beginnings a point can be the end, by how many items they have; the longest first."""
        for count in range(len(self.marks), beyond, -1):
            if self.marks[count - 1].digest:  # else it is found from the item before it
                yield count

    def covered(
        self, count: int, evidence: Callable[[], Iterable[frozenset[bytes]]], *, warm_up: bool
    ) -> int | None:
        """Return how many items stand before a point that is found after `count`, with the reasoning there.

        None when it is no point to go on from: some reasoning is not ours, or nothing new is asked. `evidence`
        returns that of the point's pages.
        """
        if self._thoughts:
            known = frozenset[bytes]().union(*evidence())
            for index in self._thoughts:
                ours = digest(self.heads[index + 1], self.marks[index].evidence[0]) in known
                if index < count and not ours:
                    return None
                if index == count and ours:
                    count += 1
        return count if count < len(self.marks) or warm_up else None


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
        for count in history.counts():
            for point in self._heads.get(history.heads[count], ()):
                covered = history.covered(count, point.evidence, warm_up=point.warm_up)
                if covered is not None:
                    return point, covered
        return None, 0

    def add(self, point: Point) -> list[Point]:
        """Remember a point; return those that had to go for it."""
        gone = [point] if not self._keep(point) else []
        while self._points and (self.size > self.max_bytes or len(self._points) > self.max_points):
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
            self._heads.setdefault(head, []).insert(0, point)
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
            found = self._heads[head]
            found.remove(point)
            if not found:
                del self._heads[head]
        for page in point.page:
            page.uses -= 1
            if page.uses:
                return
            self.size -= page.size


def start(owner: str, model: str) -> bytes:
    """Return the hash of an empty history."""
    return digest(b"%d:" % len(owner), owner.encode(), model.encode())


def step(head: bytes, one: Mark) -> bytes:
    """Return the hash of a history with one more item."""
    return digest(head, one.digest) if one.digest else head


def walk(head: bytes, marks: Sequence[Mark]) -> tuple[bytes, set[bytes]]:
    """Return the hash of a history with some more items, and the evidence of the reasoning among them."""
    evidence: set[bytes] = set()
    for one in marks:
        head = step(head, one)
        evidence.update(digest(head, proof) for proof in one.evidence)
    return head, evidence

"""The library: finds the longest known beginning of a history, never across owners, within its bounds."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pool.wire.codec import encoded
from pool.wire.events import Encoded
from scheduler.gateway.library import (
    MOST_ALIKE,
    MOST_TRIED,
    POINT_SIZE,
    RELEASED,
    History,
    Library,
    Page,
    Point,
    start,
    walk,
)
from scheduler.gateway.marks import Mark, mark

MIB = 1024 * 1024


def say(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def think(number: int) -> dict[str, Any]:
    return {"type": "reasoning", "id": f"rs_{number}", "summary": []}


def marks(*items: dict[str, Any]) -> list[Mark]:
    return [mark(item) for item in items]


def point(
    name: str,
    *items: dict[str, Any],
    before: Point | None = None,
    owner: str = "me",
    model: str = "m",
    **fields: Any,
) -> Point:
    """Return a point that `items` lead to, from another one or from the start."""
    head = start(owner, model) if before is None else before.heads[0]
    head, evidence = walk(head, marks(*items))
    page = Page(
        None if before is None else before.page, tuple(encoded(item) for item in items), frozenset(evidence)
    )
    return Point(owner=owner, response_id=name, model=model, heads=(head,), page=page, store=False, **fields)


def library(*points: Point, max_bytes: int = MIB, max_points: int = 100) -> Library:
    made = Library(max_bytes, max_points)
    for one in points:
        made.add(one)
    return made


def find(shelf: Library, owner: str, model: str, sent: list[Mark]) -> tuple[Point | None, int]:
    return shelf.find(History(owner, model, sent))


def test_the_longest_known_beginning_is_found() -> None:
    one = point("one", say("a"), say("b"))
    two = point("two", say("c"), say("d"), before=one)
    shelf = library(one, two)
    history = marks(*map(say, "abcde"))
    assert find(shelf, "me", "m", history) == (two, 4)
    assert find(shelf, "me", "m", history[:4]) == (one, 2)  # nothing new after two: the same turn once more
    assert find(shelf, "me", "m", history[:3]) == (one, 2)
    assert find(shelf, "me", "m", history[:2]) == (None, 0)
    assert find(shelf, "me", "m", [*history[:3], mark(say("x")), mark(say("y"))]) == (one, 2)
    assert find(shelf, "me", "m", []) == (None, 0)


def test_after_a_warm_up_nothing_need_be_new() -> None:
    warm = point("warm", say("a"), warm_up=True)
    assert find(library(warm), "me", "m", marks(say("a"))) == (warm, 1)


def test_owners_and_models_never_meet() -> None:
    shelf = library(point("one", say("a"), say("b")))
    history = marks(say("a"), say("b"), say("c"))
    assert find(shelf, "you", "m", history) == (None, 0)
    assert find(shelf, "me", "n", history) == (None, 0)
    assert shelf.by_id("you", "one") is None
    assert start("a", "bc") != start("ab", "c")


def test_reasoning_may_be_left_out_but_not_be_another_s() -> None:
    one = point("one", say("a"), think(1), say("b"), think(2))
    shelf = library(one)
    assert find(shelf, "me", "m", marks(say("a"), think(1), say("b"), think(2), say("c"))) == (one, 4)
    assert find(shelf, "me", "m", marks(say("a"), say("b"), say("c"))) == (one, 2)
    assert find(shelf, "me", "m", marks(say("a"), say("b"), think(2), say("c"))) == (one, 3)
    assert find(shelf, "me", "m", marks(say("a"), think(3), say("b"), say("c"))) == (None, 0)
    assert find(shelf, "me", "m", marks(say("a"), think(2), say("b"), say("c"))) == (None, 0)  # out of place
    # What follows a known beginning is the client's to say.
    assert find(shelf, "me", "m", marks(say("a"), think(1), say("b"), think(3), say("c"))) == (one, 3)


def test_the_same_words_with_other_thoughts_are_told_apart() -> None:
    one, two = point("one", say("a"), think(1), say("b")), point("two", say("a"), think(2), say("b"))
    shelf = library(one, two)
    for number, expected in ((1, one), (2, two)):
        history = marks(say("a"), think(number), say("b"), say("c"))
        assert find(shelf, "me", "m", history) == (expected, 3)
    assert find(shelf, "me", "m", marks(say("a"), say("b"), say("c"))) == (two, 2)  # the latest


def test_what_was_not_used_for_longest_goes_first_and_its_pages_stay_while_needed() -> None:
    one = point("one", say("a" * 1000))
    two = point("two", say("b"), before=one)
    shelf = library(one, two)
    size = shelf.size
    shelf.touch(one)
    assert shelf.add(point("three", say("c"))) == []
    shelf.max_points = 2
    assert shelf.add(point("four", say("d"), before=two)) == [two, one]
    assert shelf.by_id("me", "one") is None
    assert shelf.size > size  # four builds on both
    shelf.max_bytes = 1
    shelf.add(point("five", say("e")))
    assert (len(shelf), shelf.size) == (0, 0)
    assert shelf.evicted > 0


def test_a_transcript_is_read_back_in_order() -> None:
    one = point("one", say("a"), say("b"))
    two = point("two", say("c"), before=one)
    assert two.page.transcript == [encoded(say(word)) for word in "abc"]


def test_an_id_given_twice_counts_the_second_time() -> None:
    first, second = point("one", say("a"), say("b")), point("one", say("c"), say("d"))
    shelf = library(first, second)
    assert len(shelf) == 1
    assert shelf.by_id("me", "one") is second
    assert find(shelf, "me", "m", marks(say("a"), say("b"), say("x"))) == (None, 0)


class Lives(RuleBasedStateMachine):
    """Points come, branch, are used and go; a naive list of whole histories says what must be found."""

    @initialize(max_points=st.integers(1, 12))
    def open(self, max_points: int) -> None:
        self.library = Library(4096 * 8, max_points)
        self.known: dict[str, tuple[Point, list[dict[str, Any]]]] = {}
        self.serial = 0

    def keep(self, new: Point, history: list[dict[str, Any]]) -> None:
        self.known[new.response_id] = new, history
        for gone in self.library.add(new):
            del self.known[gone.response_id]

    @rule(words=st.lists(st.sampled_from("ab"), min_size=2, max_size=4), heavy=st.booleans())
    def begin(self, words: list[str], heavy: bool) -> None:
        self.serial += 1
        items = [say(word * (900 if heavy else 1)) for word in words]
        self.keep(point(f"r{self.serial}", *items), items)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), words=st.lists(st.sampled_from("ab"), min_size=2, max_size=3))
    def go_on(self, data: st.DataObject, words: list[str]) -> None:
        self.serial += 1
        before, history = self.known[data.draw(st.sampled_from(sorted(self.known)))]
        self.library.touch(before)
        items = [say(word) for word in words]
        self.keep(point(f"r{self.serial}", *items, before=before), [*history, *items])

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        gone, _ = self.known.pop(data.draw(st.sampled_from(sorted(self.known))))
        self.library.drop(gone)

    @rule(words=st.lists(st.sampled_from("ab"), max_size=6))
    def find(self, words: list[str]) -> None:
        history = [say(word) for word in words]
        found, covered = find(self.library, "me", "m", marks(*history))
        lengths = [
            len(known)
            for _, known in self.known.values()
            if len(known) < len(history) and history[: len(known)] == known
        ]
        assert covered == max(lengths, default=0)
        assert (found is None) == (not lengths)
        if found is not None:
            assert self.known[found.response_id][1] == history[:covered]

    @invariant()
    def sizes_agree(self) -> None:
        if not hasattr(self, "library"):
            return
        assert len(self.library) == len(self.known) <= self.library.max_points
        pages = {page for one, _ in self.known.values() for page in one.page}
        assert self.library.size == sum(page.size for page in pages) <= self.library.max_bytes
        assert all(page.uses > 0 and page.size >= POINT_SIZE for page in pages)
        for one, history in self.known.values():
            assert self.library.by_id("me", one.response_id) is one
            assert one.page.transcript == [Encoded(encoded(item).text) for item in history]


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=40, stateful_step_count=30)


def test_of_many_points_at_one_place_the_latest_are_found() -> None:
    alike = [point(f"p{number}", say("a")) for number in range(MOST_ALIKE + 10)]
    shelf = library(*alike, max_points=1000)
    history = marks(say("a"), say("b"))
    for one in reversed(alike[10:]):
        assert find(shelf, "me", "m", history) == (one, 1)
        shelf.drop(one)
    assert find(shelf, "me", "m", history) == (None, 0)  # the others are known by their ids alone
    for one in alike[:10]:
        assert shelf.by_id("me", one.response_id) is one
        shelf.drop(one)
    assert (len(shelf), shelf.size) == (0, 0)


def test_a_search_among_points_with_other_reasoning_is_given_up() -> None:
    line = [point("p0", say("0"), think(0))]
    for number in range(1, 3 * MOST_TRIED):
        line.append(point(f"p{number}", say(str(number)), think(number), before=line[-1]))
    shelf = library(*line)
    items = [item for number in range(3 * MOST_TRIED) for item in (say(str(number)), think(number))]
    assert find(shelf, "me", "m", marks(*items, say("new"))) == (line[-1], len(items))
    late = [*items[:-2], think(999), *items[-2:-1], say("new")]
    assert find(shelf, "me", "m", marks(*late))[0] in line  # only the latest has other reasoning
    early = [*items[:1], think(999), *items[2:], say("new")]
    assert find(shelf, "me", "m", marks(*early)) == (None, 0)


def test_a_long_conversation_is_let_go_bit_by_bit() -> None:
    one = point("p", say("a"))
    for number in range(3 * RELEASED):
        one = point(f"p{number}", say("a"), before=one)
    shelf = library(one, max_bytes=1 << 30)
    whole = shelf.size
    shelf.drop(one)
    assert 0 < shelf.size < whole  # most of it is still to go
    others = [point(f"q{number}", say(str(number))) for number in range(4)]
    for other in others:
        shelf.add(other)
    assert shelf.size == sum(other.page.size for other in others)
    assert find(shelf, "me", "m", marks(say("0"), say("x"))) == (others[0], 1)


def test_nothing_more_is_evicted_while_pages_are_on_their_way_out() -> None:
    old = point("p", say("a"))
    for number in range(3 * RELEASED):
        old = point(f"p{number}", say("a"), before=old)
    shelf = library(old, max_bytes=1 << 30)
    shelf.max_bytes = 100_000
    kept = [point(f"q{number}", say(str(number))) for number in range(5)]
    gone = [one for other in kept for one in shelf.add(other)]
    assert gone == [old]
    assert shelf.size == sum(other.page.size for other in kept)

"""What a conversation sends for its next turn: examples, and a machine against a model of the server."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pool.emulator import context_digest
from pool.wire.codec import encoded, from_json
from pool.wire.events import Encoded
from scheduler.chain import WITHOUT_ID, Chain, encode_input, replayable

Item = Mapping[str, Any]


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def said(text: str, item_id: str = "msg_1") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": item_id, "role": "assistant", "status": "completed", "content": content}


def thought(item_id: str = "rs_1", sealed: str | None = "sealed") -> dict[str, Any]:
    return {"type": "reasoning", "id": item_id, "summary": [], "encrypted_content": sealed}


def call(number: int = 1) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{number}",
        "call_id": f"call_{number}",
        "name": "f",
        "arguments": "{}",
    }


COMPACTION = {"type": "compaction", "id": "cmp_1", "encrypted_content": "all of it"}


def parsed(items: Sequence[Encoded]) -> list[Any]:
    return [from_json(item.text) for item in items]


def bare(item: Item) -> Item:
    return {name: value for name, value in item.items() if name != "id"}


def chain_after(*output: Item, store: bool = False, given: str = "hello") -> Chain:
    chain = Chain(store)
    chain.commit(encode_input(given), output, "resp_1", tokens=100)
    return chain


NEW = encode_input("and then?")


def test_a_text_becomes_a_user_message_and_items_stay_as_they_are() -> None:
    assert parsed(encode_input("hi")) == [user("hi")]
    items = [user("a"), {"type": "function_call_output", "call_id": "c", "output": "é"}]
    assert parsed(encode_input(items)) == items
    assert encode_input([]) == []


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("store", [True, False])
def test_the_first_turn_is_a_replay_of_nothing(store: bool, remembered: bool) -> None:
    plan = Chain(store).plan(NEW, remembered=remembered, lost="stolen")
    assert (plan.kind, plan.reason, plan.previous_response_id) == ("replay", "replay:new", None)
    assert list(plan.items) == NEW
    assert (plan.bytes_saved, plan.tokens_saved) == (0, 0)


@pytest.mark.parametrize("store", [True, False])
def test_a_remembered_tip_makes_a_delta(store: bool) -> None:
    chain = chain_after(said("hi"), store=store)
    plan = chain.plan(NEW, remembered=True, lost="stolen")
    assert (plan.kind, plan.reason, plan.previous_response_id) == ("delta", "hot", "resp_1")
    assert list(plan.items) == NEW
    assert (plan.bytes_saved, plan.tokens_saved) == (chain.size, 100)
    assert chain.size == sum(len(encoded(item)) for item in chain.items)


def test_a_stored_tip_makes_a_delta_wherever_it_goes() -> None:
    chain = chain_after(said("hi"), store=True)
    plan = chain.plan(NEW, remembered=False, lost="rotated")
    assert (plan.kind, plan.reason, plan.previous_response_id) == ("delta", "hydrated", "resp_1")
    assert plan.tokens_saved == 100


@pytest.mark.parametrize(
    ("lost", "reason"), [("stolen", "replay:stolen"), ("rotated", "replay:rotated"), (None, "replay:lost")]
)
def test_without_the_tip_everything_travels_and_says_why(lost: str | None, reason: str) -> None:
    chain = chain_after(said("hi"))
    plan = chain.plan(NEW, remembered=False, lost=lost)
    assert (plan.kind, plan.reason, plan.previous_response_id) == ("replay", reason, None)
    assert parsed(plan.items) == [user("hello"), bare(said("hi")), user("and then?")]
    assert (plan.bytes_saved, plan.tokens_saved) == (0, 0)


@pytest.mark.parametrize("store", [True, False])
def test_a_forgotten_tip_is_never_named_again(store: bool) -> None:
    chain = chain_after(said("hi"), store=store)
    chain.forget_tip()
    plan = chain.plan(NEW, remembered=True, lost="forgotten")
    assert (plan.kind, plan.reason, plan.previous_response_id) == ("replay", "replay:forgotten", None)
    chain.commit(NEW, [said("again")], "resp_2", tokens=7)
    assert chain.plan([], remembered=True, lost=None).previous_response_id == "resp_2"


def test_planning_changes_nothing() -> None:
    chain = chain_after(said("hi"))
    before = (chain.items, chain.tip, chain.tokens, chain.size)
    for remembered in (True, False):
        chain.plan(NEW, remembered=remembered, lost=None)
    assert (chain.items, chain.tip, chain.tokens, chain.size) == before


def test_what_is_not_stored_travels_without_ids() -> None:
    for kind in sorted(WITHOUT_ID):
        item = {"type": kind, "id": "x_1", "encrypted_content": "sealed", "odd": 1}
        assert replayable(item, store=False) == bare(item)
        assert replayable(bare(item), store=False) == bare(item)
        assert replayable(item, store=True) is item
    needs_it = {"type": "file_search_call", "id": "fs_1"}
    assert replayable(needs_it, store=False) is needs_it
    assert replayable({"id": "?"}, store=False) == {"id": "?"}
    assert replayable({"type": ["odd"], "id": "?"}, store=False) == {"type": ["odd"], "id": "?"}


@pytest.mark.parametrize("sealed", [None, ""])
def test_reasoning_that_cannot_be_sent_back_is_dropped(sealed: str | None) -> None:
    assert replayable(thought(sealed=sealed), store=False) is None
    assert replayable(thought(sealed=sealed), store=True) == thought(sealed=sealed)
    chain = chain_after(thought(sealed=sealed), said("hi"))
    assert chain.items == [user("hello"), bare(said("hi"))]


def test_stored_items_keep_their_ids() -> None:
    output = [thought(sealed=None), said("hi"), call()]
    assert chain_after(*output, store=True).items == [user("hello"), *output]


def test_items_that_were_not_stored_after_all_are_stripped() -> None:
    chain = chain_after(thought(sealed=None), thought("rs_2"), said("hi"), store=True)
    chain.forget_tip()
    chain.strip()
    assert chain.items == [user("hello"), bare(thought("rs_2")), bare(said("hi"))]
    assert chain.size == sum(len(encoded(item)) for item in chain.items)


@pytest.mark.parametrize("store", [True, False])
def test_a_compaction_takes_the_place_of_everything_before_it(store: bool) -> None:
    chain = chain_after(said("hi"), store=store)
    chain.commit(NEW, [COMPACTION, said("later", "msg_2")], "resp_2", tokens=20)
    expected = [COMPACTION, said("later", "msg_2")]
    assert chain.items == (expected if store else [bare(item) for item in expected])
    assert chain.size == sum(len(encoded(item)) for item in chain.items)
    assert (chain.tip, chain.tokens) == ("resp_2", 20)
    # Of several the last counts.
    chain.commit([], [said("old"), COMPACTION, said("x"), COMPACTION], "resp_3", tokens=5)
    assert chain.items == [COMPACTION if store else bare(COMPACTION)]


def test_a_fork_goes_its_own_way() -> None:
    chain = chain_after(said("hi"))
    fork = chain.fork()
    assert (fork.items, fork.tip, fork.tokens, fork.size, fork.store) == (
        chain.items,
        chain.tip,
        chain.tokens,
        chain.size,
        chain.store,
    )
    fork.commit(NEW, [said("left")], "resp_left", tokens=1)
    chain.commit(encode_input("no"), [said("right")], "resp_right", tokens=2)
    assert (chain.tip, len(chain), chain.tokens) == ("resp_right", 4, 2)
    assert (fork.tip, len(fork), fork.tokens) == ("resp_left", 4, 1)
    assert fork.items[:2] == chain.items[:2]
    assert fork.items[2:] != chain.items[2:]
    fork.forget_tip()
    assert chain.tip == "resp_right"


@define
class Branch:
    """A chain and what we know of it ourselves."""

    chain: Chain
    items: list[Item] = field(factory=list)  # the transcript, as it came
    tip: str | None = None


@define
class Server:
    """What a server holds: for each response the items it was made of, output included."""

    contexts: dict[str, list[Item]] = field(factory=dict)
    remembered: set[str] = field(factory=set)
    stored: set[str] = field(factory=set)


TEXTS = st.sampled_from(["", "a", "é", "longer text"])
ITEMS = st.one_of(
    TEXTS.map(said),
    st.just(thought()),
    st.integers(1, 3).map(call),
    st.just({"type": "web_search_call", "id": "ws_1", "status": "completed"}),
    st.just({"type": "file_search_call", "id": "fs_1"}),
)
INPUTS = st.one_of(TEXTS, st.lists(TEXTS.map(user), max_size=3))


class Conversations(RuleBasedStateMachine):
    """Branches of conversations against one server: it must see every transcript as it is, whatever it kept."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.branches: list[Branch] = []
        self.ids = itertools.count(1)

    def pick(self, index: int) -> Branch:
        return self.branches[index % len(self.branches)]

    @rule(store=st.booleans())
    def begin(self, store: bool) -> None:
        self.branches.append(Branch(Chain(store)))

    @precondition(lambda self: self.branches)
    @rule(
        index=st.integers(0, 50),
        given=INPUTS,
        output=st.lists(ITEMS, max_size=3),
        compacts=st.booleans(),
        lost=st.sampled_from([None, "stolen", "rotated"]),
        ends=st.sampled_from(["well", "badly"]),
    )
    def turn(
        self, index: int, given: Any, output: list[Item], compacts: bool, lost: str | None, ends: str
    ) -> None:
        branch, server = self.pick(index), self.server
        chain = branch.chain
        new = encode_input(given)
        plan = chain.plan(new, remembered=branch.tip in server.remembered, lost=lost)
        seen = parsed(plan.items)
        if plan.previous_response_id is not None:
            assert plan.previous_response_id == branch.tip
            assert branch.tip in server.remembered | server.stored or chain.store
            if branch.tip not in server.remembered | server.stored:
                chain.forget_tip()  # previous_response_not_found
                branch.tip = None
                return
            seen = [*server.contexts[branch.tip], *seen]
            assert plan.reason == ("hot" if branch.tip in server.remembered else "hydrated")
            assert plan.bytes_saved == sum(len(encoded(item)) for item in chain.items)
        else:
            expected = "new" if not branch.items else lost or "lost"
            assert plan.reason == f"replay:{expected}"
            assert plan.bytes_saved == plan.tokens_saved == 0
        items = [*branch.items, *parsed(new)]
        assert context_digest(seen) == context_digest(items)
        if ends == "badly":
            server.remembered.discard(str(branch.tip))
            return
        said_now: list[Item] = [COMPACTION, *output] if compacts else output
        response_id = f"resp_{next(self.ids)}"
        chain.commit(new, said_now, response_id, tokens=len(items))
        server.contexts[response_id] = list(said_now) if compacts else [*seen, *said_now]
        server.remembered.add(response_id)
        if chain.store:
            server.stored.add(response_id)
        branch.items = list(said_now) if compacts else [*items, *said_now]
        branch.tip = response_id

    @precondition(lambda self: self.branches)
    @rule(index=st.integers(0, 50))
    def fork(self, index: int) -> None:
        branch = self.pick(index)
        self.branches.append(Branch(branch.chain.fork(), list(branch.items), branch.tip))

    @rule()
    def lose_the_connection(self) -> None:
        self.server.remembered.clear()

    @rule()
    def lose_the_store(self) -> None:
        self.server.stored.clear()

    @precondition(lambda self: self.branches)
    @rule(index=st.integers(0, 50))
    def items_were_not_stored(self, index: int) -> None:
        self.pick(index).chain.strip()

    @invariant()
    def transcripts_are_right(self) -> None:
        for branch in self.branches:
            chain = branch.chain
            assert chain.tip == branch.tip
            assert context_digest(chain.items) == context_digest(branch.items)
            assert chain.size == sum(len(encoded(item)) for item in chain.items)
            assert len(chain) == len(chain.items)
            if not chain.store:
                assert not [item for item in chain.items if "id" in item and item["type"] in WITHOUT_ID]


TestConversations = Conversations.TestCase
TestConversations.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

"""Whatever path a turn takes, the server sees exactly the client's transcript."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from pool.emulator import EmulatorSettings, Latency
from pool.emulator.memory import Store
from pool.settings import Lanes, PoolSettings
from scheduler.conversation import Conversation
from scheduler.errors import ConversationBusy
from scheduler.turns import Turn
from tests.support.world import asking, outputs, take, tool_loop, world

SINGLE = EmulatorSettings(lanes=Lanes.single())
STORES = pytest.mark.parametrize("store", [False, True])


def reasons(conversation: Conversation) -> list[str]:
    return [placement.reason for placement in conversation.placements]


@STORES
@pytest.mark.parametrize("lanes", [Lanes.single(), Lanes.multi()], ids=["single", "multi"])
async def test_a_conversation_stays_hot(autojump_clock: MockClock, store: bool, lanes: Lanes) -> None:
    async with world(server=EmulatorSettings(lanes=lanes)) as w:
        conversation = w.scheduler.conversation(store=store)
        turns = await tool_loop(conversation, asking("calls=8 parallel=2 reasoning=1"), "go")
        assert reasons(conversation) == ["replay:new", *["hot"] * 8]
        assert len({turn.placement.lane for turn in turns}) == 1
        assert w.emulator.stats.deltas == 8
        assert [turn.attempts for turn in turns] == [1] * 9
        stats = w.scheduler.stats()
        assert stats.turns == 9
        assert stats.placements == {"replay:new": 1, "hot": 8}
        assert stats.retries == {}
        assert stats.bytes_saved == sum(turn.placement.bytes_saved for turn in turns) > 0
        assert stats.tokens_saved == sum(turn.usage.total_tokens for turn in turns[:-1])
        assert stats.usage.input_tokens == sum(turn.usage.input_tokens for turn in turns)
        assert stats.usage.reasoning_tokens == sum(turn.usage.reasoning_tokens for turn in turns) > 0
        assert stats.bytes_sent <= w.pool.stats().bytes_sent
        w.assert_quiet()


async def test_what_a_turn_tells(autojump_clock: MockClock) -> None:
    latency = Latency(base=2.0, output=0.1)
    async with world(server=EmulatorSettings(latency=latency)) as w:
        conversation = w.scheduler.conversation(name="talk")
        turn = await take(conversation, "hello", asking("calls=0 output_tokens=10"))
        assert (turn.status, turn.incomplete_reason, turn.calls) == ("completed", None, ())
        assert turn.response_id == conversation.tip == turn.payload["id"]
        assert turn.output == tuple(turn.payload["output"])
        assert turn.first_event == pytest.approx(2.0)
        assert turn.seconds == pytest.approx(3.0)
        assert turn.usage.output_tokens == 10
        assert turn.placement.connection in turn.placement.lane
        assert w.scheduler.stats().first_event.p50 == pytest.approx(2.0, rel=0.01)
        assert repr(conversation) == f"<Conversation 'talk' turns=1 items=2 tip={turn.response_id}>"
        cut = await take(
            conversation, "more", asking("calls=0 output_tokens=50", max_output_tokens=5), ending=False
        )
        assert (cut.status, cut.incomplete_reason) == ("incomplete", "max_output_tokens")
        assert reasons(conversation) == ["replay:new", "hot"]
        await take(conversation, "go on")  # an incomplete response can be continued like any other
        assert reasons(conversation)[-1] == "hot"


@STORES
async def test_a_lost_connection(autojump_clock: MockClock, store: bool) -> None:
    async with world() as w:
        conversation = w.scheduler.conversation(store=store)
        await take(conversation, "one", asking("calls=0 reasoning=1"))
        await w.network.cut()
        await trio.testing.wait_all_tasks_blocked()
        await take(conversation, "two")
        await take(conversation, "three")
        assert reasons(conversation) == ["replay:new", "hydrated" if store else "replay:lost", "hot"]
        assert w.emulator.stats.hydrations == store
        assert w.pool.stats().lost == 1


@STORES
async def test_a_stolen_lane(autojump_clock: MockClock, store: bool) -> None:
    async with world(server=SINGLE, pool=PoolSettings(max_connections=1)) as w:
        one, two = (w.scheduler.conversation(store=store) for _ in range(2))
        await take(one, "one")
        await take(two, "two")
        await take(one, "three")
        await take(two, "four")
        expected = ["replay:new", "hydrated" if store else "replay:stolen"]
        assert reasons(one) == reasons(two) == expected
        assert w.pool.stats().opened == 1


@STORES
async def test_a_rotated_connection(autojump_clock: MockClock, store: bool) -> None:
    async with world() as w:
        conversation = w.scheduler.conversation(store=store)
        first = await take(conversation, "one")
        w.pool.rotate()
        await trio.testing.wait_all_tasks_blocked()
        second = await take(conversation, "two")
        assert second.placement.connection != first.placement.connection
        assert reasons(conversation) == ["replay:new", "hydrated" if store else "replay:rotated"]
        assert (w.pool.stats().rotated, w.pool.stats().lost) == (1, 0)


@STORES
async def test_a_forgotten_parent(autojump_clock: MockClock, store: bool) -> None:
    async with world(server=EmulatorSettings(faults="forget,create=2")) as w:
        conversation = w.scheduler.conversation(store=store)
        await take(conversation, "one", asking("calls=0 reasoning=2"))
        turn = await take(conversation, "two")
        assert turn.attempts == 2
        assert reasons(conversation) == ["replay:new", "replay:forgotten"]
        assert w.scheduler.stats().retries == {"previous_response_not_found": 1}
        await take(conversation, "three")
        assert reasons(conversation)[-1] == "hot"


async def test_a_server_that_stored_nothing_after_all(autojump_clock: MockClock) -> None:
    """An organisation with zero data retention gets this: `store` is taken, and means nothing."""
    async with world() as w:
        conversation = w.scheduler.conversation(store=True)
        await take(conversation, "one", asking("calls=0 reasoning=1"))
        w.emulator.service.store = Store()
        await w.network.cut()
        await trio.testing.wait_all_tasks_blocked()
        turn = await conversation.turn("two", asking("calls=0"))
        assert turn.attempts == 3
        assert w.scheduler.stats().retries == {"previous_response_not_found": 1, "items not stored": 1}
        assert [item["type"] for item in conversation.transcript] == ["message"] * 4
        await take(conversation, "three")


@STORES
async def test_forks_run_in_parallel(autojump_clock: MockClock, store: bool) -> None:
    async with world(server=EmulatorSettings(latency=Latency(base=1.0))) as w:
        root = w.scheduler.conversation(name="root", store=store)
        await take(root, "root", asking("calls=0 reasoning=1"))
        forks = [root.fork(name=f"fork {n}") for n in range(5)]
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number, fork in enumerate(forks):
                nursery.start_soon(take, fork, f"branch {number}")
        assert trio.current_time() - began == pytest.approx(1.0)
        assert [reasons(fork) for fork in forks] == [["hot"]] * 5
        assert w.emulator.stats.forks == 5
        lanes = {fork.placements[0].lane for fork in forks} | {root.placements[0].lane}
        assert len(lanes) == 6
        async with trio.open_nursery() as nursery:
            for conversation in (root, *forks):
                nursery.start_soon(take, conversation, "on")
        assert all(reasons(one)[-1] == "hot" for one in (root, *forks))
        assert len({str(one.transcript) for one in (root, *forks)}) == 6
        assert root.fork().name == "root/fork"


@STORES
async def test_a_fork_on_another_connection(autojump_clock: MockClock, store: bool) -> None:
    async with world(server=EmulatorSettings(lanes=Lanes.single(), latency=Latency(base=1.0))) as w:
        root = w.scheduler.conversation(store=store)
        await take(root, "root")
        fork = root.fork()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, root, "on")
            nursery.start_soon(take, fork, "aside")
        assert fork.placements[0].connection != root.placements[0].connection
        assert reasons(fork) == ["hydrated" if store else "replay:forked"]
        assert reasons(root) == ["replay:new", "hot"]


async def test_a_fork_whose_parent_has_moved_on(autojump_clock: MockClock) -> None:
    """The tip is gone from the server when the fork starts: refused, and replayed at once."""
    server = EmulatorSettings(latency=Latency(base=1.0), lanes=Lanes.multi(in_flight=2, named=8))
    async with world(server=server, lanes=Lanes.multi(in_flight=8, named=8)) as w:
        root, other = w.scheduler.conversation(), w.scheduler.conversation()
        await take(root, "root")
        fork = root.fork()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, root, "on")
            await trio.sleep(0.3)
            nursery.start_soon(take, other, "in the way")
            await trio.sleep(0.3)
            nursery.start_soon(take, fork, "aside")  # waits on the server until the root has moved on
            await trio.sleep(0.1)
            assert w.pool.stats().leased_lanes == 3
        assert reasons(root) == ["replay:new", "hot"]
        assert reasons(fork) == ["replay:forgotten"]


@STORES
@pytest.mark.parametrize("cut", [False, True])
async def test_compaction_by_the_server(autojump_clock: MockClock, store: bool, cut: bool) -> None:
    management = [{"type": "compaction", "compact_threshold": 700}]
    async with world() as w:
        conversation = w.scheduler.conversation(store=store)
        compacted = 0
        for number in range(12):
            turn: Turn = await take(
                conversation,
                f"{number} " + "word " * 100,
                asking("calls=0 reasoning=1", context_management=management),
            )
            if turn.output[0]["type"] == "compaction":
                compacted += 1
                assert len(conversation.transcript) == len(turn.output)
            if cut and number % 3 == 2:
                await w.network.cut()
                await trio.testing.wait_all_tasks_blocked()
        assert compacted >= 2
        expected = {"replay:new": 1, "hot": 11}
        if cut:
            expected = {"replay:new": 1, "hot": 8, "hydrated" if store else "replay:lost": 3}
        assert w.scheduler.stats().placements == expected


@STORES
async def test_many_conversations_share_few_connections(autojump_clock: MockClock, store: bool) -> None:
    server = EmulatorSettings(latency=Latency(base=0.2, output=0.01), lanes=Lanes.multi(in_flight=3, named=5))
    async with world(server=server, pool=PoolSettings(max_connections=2)) as w:
        conversations = [w.scheduler.conversation(store=store) for _ in range(20)]
        async with trio.open_nursery() as nursery:
            for number, conversation in enumerate(conversations):
                nursery.start_soon(tool_loop, conversation, asking("calls=5 parallel=2"), f"go {number}")
        assert w.scheduler.stats().turns == 120
        # A tip whose lane was taken is remembered until the taker's response ends: that may be just too soon.
        assert set(w.scheduler.stats().retries) <= {"previous_response_not_found"}
        assert w.pool.stats().opened == 2
        assert w.emulator.stats.most_in_flight <= 3
        w.assert_quiet()


async def test_one_turn_at_a_time(autojump_clock: MockClock) -> None:
    async with world(server=EmulatorSettings(latency=Latency(base=1.0))) as w:
        conversation = w.scheduler.conversation(name="talk")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, conversation, "one")
            await trio.sleep(0.5)
            with pytest.raises(ConversationBusy, match=r"'talk'.*fork"):
                await conversation.turn("two", asking())
        assert len(conversation.placements) == 1
        await take(conversation, "two")
        assert reasons(conversation) == ["replay:new", "hot"]


async def test_a_closed_conversation_frees_its_lane(autojump_clock: MockClock) -> None:
    async with world(server=SINGLE, pool=PoolSettings(max_connections=1, min_idle=0)) as w:
        one, two = w.scheduler.conversation(), w.scheduler.conversation()
        assert (one.name, two.name) == ("conversation 1", "conversation 2")
        await take(one, "one")
        assert w.pool.stats().hot_lanes == 1
        one.close()
        one.close()
        assert w.pool.stats().hot_lanes == 0
        await take(two, "two")
        await take(one, "three")
        assert reasons(one) == ["replay:new", "replay:closed"]


async def test_the_same_items_whether_they_are_events_or_results(autojump_clock: MockClock) -> None:
    async with world() as w:
        conversation = w.scheduler.conversation()
        kinds: list[str] = []

        async def listen(event: object) -> None:
            kinds.append(getattr(event, "type", ""))
            await trio.lowlevel.checkpoint()

        turn = await take(conversation, "go", asking("calls=1 parallel=2"), on_event=listen)
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert kinds.count("response.output_item.done") == 2
        await take(conversation, outputs(turn), asking("calls=1"), on_event=listen)
        assert kinds.count("response.completed") == 2
        assert reasons(conversation) == ["replay:new", "hot"]

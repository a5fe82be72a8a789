"""The recovery ladder against an emulator that breaks on purpose."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pool.emulator import EmulatorSettings, Latency
from pool.errors import ConnectionLost, DialFailed, FrameTooLarge, PoolClosed, ResponseFailed
from pool.settings import Lanes, PoolSettings
from pool.wire.events import ServerEvent
from scheduler.attempts import Restarted
from scheduler.conversation import Conversation
from scheduler.settings import SchedulerSettings
from tests.support.world import asking, take, world

DELTA = asking("calls=0 deltas=6 output_tokens=6")
BOTH_LANES = pytest.mark.parametrize("lanes", [Lanes.single(), Lanes.multi()], ids=["single", "multi"])
STRICT = SchedulerSettings(ambiguous="fail", interrupted="fail")


def serving(faults: str = "", **settings: Any) -> EmulatorSettings:
    return EmulatorSettings(faults=faults, **settings)


def reasons(conversation: Conversation) -> list[str]:
    return [placement.reason for placement in conversation.placements]


class Listener:
    """Keeps the types of what it hears."""

    def __init__(self) -> None:
        self.heard: list[ServerEvent] = []

    async def __call__(self, event: ServerEvent) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.type for event in self.heard]


async def test_a_refused_turn_leaves_no_trace(autojump_clock: MockClock) -> None:
    async with world(server=serving("error,status=400,create=2")) as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "one", asking("calls=0 reasoning=1"))
        before, tip = conversation.transcript, conversation.tip
        with pytest.raises(ResponseFailed) as caught:
            await conversation.turn("two", asking("calls=0"))
        assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_value", "input")
        assert (conversation.transcript, conversation.tip) == (before, tip)
        assert len(conversation.placements) == w.scheduler.stats().turns == 1
        w.assert_quiet()
        turn = await take(conversation, "two")
        assert turn.attempts == 1
        assert reasons(conversation) == ["replay:new", "replay:failed"]  # the server has evicted the parent
        assert w.emulator.stats.evictions == 1


async def test_a_refused_fork_leaves_its_parent_hot(autojump_clock: MockClock) -> None:
    async with world(server=serving("error,status=400,create=2")) as w:
        root = w.scheduler.conversation()
        await take(root, "root")
        fork = root.fork()
        with pytest.raises(ResponseFailed):
            await fork.turn("aside", asking("calls=0"))
        await take(root, "on")
        await take(fork, "aside")
        assert reasons(root) == ["replay:new", "hot"]
        assert reasons(fork) == ["replay:failed"]  # by now the root has moved on


@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [
        ("rate_limit,create=2,retry_after=7", 7.0, 7.0),
        ("rate_limit,create=2,retry_after=0.25", 0.25, 0.25),
        ("rate_limit,create=2", 0.375, 0.5),
        ("error,status=503,create=2", 0.375, 0.5),
        ("error,status=500,create=2,retry_after=3", 3.0, 3.0),
        ("failed,at=0,create=2", 0.375, 0.5),
        ("failed,at=4,create=2", 0.375, 0.5),
        ("rate_limit,create=2; rate_limit,create=3; error,status=500,create=4", 2.6, 3.5),
    ],
)
async def test_what_passes_is_waited_for(
    autojump_clock: MockClock, fault: str, least: float, most: float
) -> None:
    async with world(server=serving(fault)) as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "one", DELTA)
        began = trio.current_time()
        turn = await take(conversation, "two", DELTA)
        assert least <= trio.current_time() - began <= most
        assert turn.seconds == pytest.approx(trio.current_time() - began)
        assert turn.attempts == sum(w.scheduler.stats().retries.values()) + 1 == fault.count("create=") + 1
        assert reasons(conversation) == ["replay:new", "replay:failed"]
        await take(conversation, "three", DELTA)
        assert reasons(conversation)[-1] == "hot"


async def test_it_is_not_waited_for_ever(autojump_clock: MockClock) -> None:
    async with world(server=serving("rate_limit")) as w:
        conversation = w.scheduler.conversation()
        with trio.fail_after(60), pytest.raises(ResponseFailed) as caught:
            await conversation.turn("one", asking())
        assert caught.value.status == 429
        assert w.scheduler.stats().retries == {"rate_limit_exceeded": 5}
        assert 0.75 * 15.5 <= trio.current_time() <= 15.5
        assert w.pool.stats().opened == 1  # the socket is not to blame
        w.assert_quiet()


async def test_nor_longer_than_we_want(autojump_clock: MockClock) -> None:
    async with world(server=serving("rate_limit,retry_after=3600")) as w:
        with pytest.raises(ResponseFailed) as caught:
            await w.scheduler.conversation().turn("one", asking())
        assert caught.value.retry_after == 3600
        assert trio.current_time() < 1


@BOTH_LANES
@pytest.mark.parametrize("how", ["close", "abrupt", "midframe"])
@pytest.mark.parametrize("store", [False, True])
async def test_a_loss_in_mid_response_is_silent(
    autojump_clock: MockClock, lanes: Lanes, how: str, store: bool
) -> None:
    async with world(server=serving(f"drop,at=6,how={how},create=2", lanes=lanes)) as w:
        conversation = w.scheduler.conversation(store=store)
        await take(conversation, "one", DELTA)
        turn = await take(conversation, "two", DELTA)
        assert turn.attempts == 2
        assert reasons(conversation) == ["replay:new", "hydrated" if store else "replay:lost"]
        assert w.scheduler.stats().retries == {"lost in mid-response": 1}
        assert w.pool.stats().opened == 2
        w.assert_quiet()


@pytest.mark.parametrize("how", ["close", "abrupt", "midframe"])
async def test_whoever_listens_is_told_to_start_afresh(autojump_clock: MockClock, how: str) -> None:
    async with world(server=serving(f"drop,at=6,how={how},create=2")) as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "one", DELTA)
        listener = Listener()
        await take(conversation, "two", DELTA, on_event=listener)
        cut = listener.kinds.index("warmline.restarted")
        assert cut == 6
        restarted = listener.heard[cut]
        assert isinstance(restarted, Restarted)
        assert restarted.reason == "lost in mid-response"
        again = listener.kinds[cut + 1 :]
        assert again[:6] == listener.kinds[:cut]
        assert (again[0], again[-1]) == ("response.created", "response.completed")
        assert again.count("warmline.restarted") == 0
        assert again.count("response.output_text.delta") == 6


async def test_nobody_is_told_of_what_was_never_seen(autojump_clock: MockClock) -> None:
    async with world(server=serving("drop,at=0,create=1; rate_limit,create=2")) as w:
        listener = Listener()
        turn = await take(w.scheduler.conversation(), "one", DELTA, on_event=listener)
        assert turn.attempts == 3
        # A refusal is an event like any other, and was seen.
        assert listener.kinds[:3] == ["error", "warmline.restarted", "response.created"]


@BOTH_LANES
async def test_the_caller_may_want_the_error_instead(autojump_clock: MockClock, lanes: Lanes) -> None:
    async with world(server=serving("drop,at=6,create=2", lanes=lanes), settings=STRICT) as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "one", DELTA)
        before = conversation.transcript
        listener = Listener()
        with pytest.raises(ConnectionLost) as caught:
            await conversation.turn("two", DELTA, on_event=listener)
        assert (caught.value.sent, caught.value.started) == (True, True)
        assert len(listener.heard) == 6
        assert conversation.transcript == before
        await take(conversation, "two", DELTA, on_event=listener)
        assert reasons(conversation) == ["replay:new", "replay:lost"]
        w.assert_quiet()


@BOTH_LANES
async def test_sent_and_nothing_came_back(autojump_clock: MockClock, lanes: Lanes) -> None:
    server = serving("drop,at=0,create=1", lanes=lanes)
    async with world(server=server) as w:
        turn = await take(w.scheduler.conversation(), "one")
        assert turn.attempts == 2
        assert w.scheduler.stats().retries == {"lost after the send": 1}
    async with world(server=server, settings=SchedulerSettings(ambiguous="fail")) as w:
        with pytest.raises(ConnectionLost) as caught:
            await w.scheduler.conversation().turn("one", asking())
        assert (caught.value.sent, caught.value.started) == (True, False)
        assert w.scheduler.stats().retries == {}


async def test_a_server_that_drops_everything_is_not_hammered(autojump_clock: MockClock) -> None:
    async with world(server=serving("drop,at=0")) as w:
        with trio.fail_after(60), pytest.raises(ConnectionLost):
            await w.scheduler.conversation().turn("one", asking())
        assert w.scheduler.stats().retries == {"lost after the send": 5}
        assert trio.current_time() > 0.75 * (0.5 + 1 + 2 + 4)


@BOTH_LANES
@pytest.mark.parametrize("store", [False, True])
async def test_a_stale_socket_costs_nothing(autojump_clock: MockClock, lanes: Lanes, store: bool) -> None:
    """Closed while it was idle, and a turn is placed on it before the end has been read."""
    async with world(server=serving(lanes=lanes), settings=STRICT) as w:
        conversation = w.scheduler.conversation(store=store)
        await take(conversation, "one")
        stream = w.network.clients[-1].stream
        assert isinstance(stream, trio.StapledStream)
        await stream.send_stream.aclose()  # nothing leaves any more; nothing has come in yet
        turn = await take(conversation, "two")
        assert turn.attempts == 2
        assert w.scheduler.stats().retries == {"stale socket": 1}
        # "failed" when the turn comes to know before the connection's reader does.
        assert reasons(conversation)[1] in (["hydrated"] if store else ["replay:lost", "replay:failed"])
        w.assert_quiet()


@BOTH_LANES
@pytest.mark.parametrize("kind", ["limit_create", "limit_mid,at=0", "limit_mid,at=3"])
async def test_the_age_limit_as_the_answer(autojump_clock: MockClock, lanes: Lanes, kind: str) -> None:
    settings = SchedulerSettings(ambiguous="fail")
    async with world(server=serving(f"{kind},create=2", lanes=lanes), settings=settings) as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "one", DELTA)
        turn = await take(conversation, "two", DELTA)
        assert turn.attempts == 2
        assert turn.seconds < 0.1
        assert reasons(conversation)[-1] in ("replay:expired", "replay:failed", "replay:lost")
        assert w.pool.stats().opened == 2
        assert w.emulator.stats.limit_closes == 1


@BOTH_LANES
async def test_the_age_limit_on_an_idle_connection(autojump_clock: MockClock, lanes: Lanes) -> None:
    async with world(server=serving("limit_idle,after=5,connection=1", lanes=lanes), settings=STRICT) as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "one")
        await trio.sleep(6)
        turn = await take(conversation, "two")
        assert turn.attempts == 1
        assert reasons(conversation) == ["replay:new", "replay:expired"]


async def test_the_age_limit_refuses_everything_that_has_not_begun(autojump_clock: MockClock) -> None:
    """Only one of several creates is told; the others were not served either."""
    server = serving("limit_create,create=3", latency=Latency(base=1.0))
    settings = SchedulerSettings(ambiguous="fail")
    async with world(server=server, pool=PoolSettings(max_connections=1), settings=settings) as w:
        conversations = [w.scheduler.conversation() for _ in range(6)]
        async with trio.open_nursery() as nursery:
            for conversation in conversations:
                nursery.start_soon(take, conversation, "one")
        assert w.pool.stats().opened == 2
        assert w.scheduler.stats().turns == 6


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_endpoint_without_lanes(autojump_clock: MockClock, streaming: bool) -> None:
    async with world(
        server=serving(lanes=Lanes.single(), latency=Latency(base=1)), lanes=Lanes.multi(), settings=STRICT
    ) as w:
        conversations = [w.scheduler.conversation() for _ in range(5)]
        listener = Listener() if streaming else None
        async with trio.open_nursery() as nursery:
            for conversation in conversations:
                nursery.start_soon(lambda c: take(c, "one", on_event=listener), conversation)
        assert set(w.scheduler.stats().retries) == {"lane names refused"}
        async with trio.open_nursery() as nursery:
            for conversation in conversations:
                nursery.start_soon(take, conversation, "two")
        assert all(reasons(one) == ["replay:new", "hot"] for one in conversations)
        assert all(one.placements[-1].lane.endswith("/lane") for one in conversations)
        w.assert_quiet()


async def test_an_endpoint_with_fewer_names_than_we_thought(autojump_clock: MockClock) -> None:
    server = serving(lanes=Lanes.multi(in_flight=4, named=4), latency=Latency(base=1))
    async with world(server=server, lanes=Lanes.multi(), settings=STRICT) as w:
        conversations = [w.scheduler.conversation() for _ in range(12)]
        with trio.fail_after(60):
            for said in ("one", "two", "three"):
                async with trio.open_nursery() as nursery:
                    for conversation in conversations:
                        nursery.start_soon(take, conversation, said)
        assert set(w.scheduler.stats().retries) == {"websocket_stream_limit_reached"}
        assert all(reasons(one)[-1] == "hot" for one in conversations)
        w.assert_quiet()


async def test_a_message_over_the_cap_is_not_sent(autojump_clock: MockClock) -> None:
    async with world(frame_cap=4096) as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "one")
        with pytest.raises(FrameTooLarge):
            await conversation.turn("x" * 5000, asking())
        await take(conversation, "two")
        assert reasons(conversation) == ["replay:new", "hot"]


async def test_a_message_over_a_cap_that_we_did_not_know(autojump_clock: MockClock) -> None:
    async with world(server=serving(frame_cap=4096)) as w:
        conversation = w.scheduler.conversation()
        await take(conversation, "one")
        with pytest.raises(ConnectionLost) as caught:
            await conversation.turn("x" * 5000, asking())
        assert caught.value.code == 1009
        assert w.scheduler.stats().retries == {"lost after the send": 1}
        await take(conversation, "two")


async def test_a_short_outage_is_sat_out(autojump_clock: MockClock) -> None:
    for seconds in (1, 5, 20):
        async with world() as w:
            conversation = w.scheduler.conversation()
            await take(conversation, "one")
            await w.network.cut()
            w.network.down_until = trio.current_time() + seconds
            turn = await take(conversation, "two")
            assert seconds <= turn.seconds <= 2 * seconds + 1
            assert reasons(conversation) == ["replay:new", "replay:lost"]
            assert len(w.network.dials) < 20


@pytest.mark.parametrize("status", [403, 429, 500, 503])
async def test_refused_upgrades_are_sat_out(autojump_clock: MockClock, status: int) -> None:
    async with world(server=serving(f"refuse,status={status},times=6")) as w:
        conversations = [w.scheduler.conversation() for _ in range(20)]
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for conversation in conversations:
                    nursery.start_soon(take, conversation, "one")
        assert w.pool.stats().dials_failed == 6
        w.assert_quiet()


async def test_an_outage_without_end(autojump_clock: MockClock) -> None:
    async with world() as w:
        w.network.down_until = float("inf")
        conversations = [w.scheduler.conversation() for _ in range(10)]

        async def fail(conversation: Conversation) -> None:
            with pytest.raises(DialFailed):
                await conversation.turn("one", asking())

        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                for conversation in conversations:
                    nursery.start_soon(fail, conversation)
        assert len(w.network.dials) < 60
        w.assert_quiet()


@pytest.mark.parametrize("status", [401, 404, 426])
async def test_a_refusal_that_waiting_does_not_cure(autojump_clock: MockClock, status: int) -> None:
    async with world(server=serving(f"refuse,status={status}")) as w:
        with pytest.raises(DialFailed) as caught:
            await w.scheduler.conversation().turn("one", asking())
        assert caught.value.status == status
        assert trio.current_time() < 5


async def test_a_pool_that_closes_under_a_turn(autojump_clock: MockClock) -> None:
    async with world(server=serving(latency=Latency(base=5.0))) as w:
        conversation = w.scheduler.conversation()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def turn() -> None:
                with pytest.raises(PoolClosed):
                    await conversation.turn("one", asking())

            await trio.sleep(1)
            w.pool.close()
        assert conversation.transcript == []
        w.assert_quiet()

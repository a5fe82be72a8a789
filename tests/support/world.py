"""An emulator, a scheduler and memory streams between them: everything but the kernel, on trio's clock."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing
from attrs import define, field

from pool.dial import Dialer
from pool.emulator import Emulator, EmulatorSettings, context_digest
from pool.errors import DialFailed
from pool.pool import Pool
from pool.settings import Endpoint, Lanes, PoolSettings
from pool.slots import LaneState
from scheduler.attempts import OnEvent
from scheduler.conversation import Conversation
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.settings import SchedulerSettings
from scheduler.turns import Turn, TurnRequest
from tests.support.scripted import ScriptedServer

TOOL: Mapping[str, Any] = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}


def asking(script: str = "", **options: Any) -> TurnRequest:
    """Return a request that steers the scripted model."""
    metadata = {"metadata": {"emulator": script}} if script else {}
    return TurnRequest(
        model="emulated", instructions="Be brief.", tools=[TOOL], options={**metadata, **options}
    )


@define(eq=False)
class ClientEnd(trio.abc.Stream):
    """The client's end of a connection, which can be clogged."""

    stream: trio.abc.Stream
    clear: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.clear.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, once there is a way."""
        await self.clear.wait()
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Nobody asks."""
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive."""
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close."""
        await self.stream.aclose()


@define(eq=False)
class Network:
    """Carries dials to a server, each over a pair of memory streams."""

    server: Emulator | ScriptedServer
    nursery: trio.Nursery
    down_until: float = field(default=-1.0, init=False)  # until then nobody answers
    dials: list[float] = field(factory=list, init=False)  # when
    servers: list[trio.abc.Stream] = field(factory=list, init=False)  # the server's ends, as dialled
    clients: list[ClientEnd] = field(factory=list, init=False)  # ours

    async def connect(self) -> trio.abc.Stream:
        """Open one connection."""
        await trio.lowlevel.checkpoint()
        self.dials.append(trio.current_time())
        if trio.current_time() < self.down_until:
            raise DialFailed("nobody answers")
        client, server = trio.testing.memory_stream_pair()
        self.servers.append(server)
        self.nursery.start_soon(self.server.handle, server)
        self.clients.append(ClientEnd(client))
        return self.clients[-1]

    def clog(self) -> None:
        """Let no data of the client's leave on the connections there are, until `clear`."""
        for client in self.clients:
            client.clear = trio.Event()

    def clear(self) -> None:
        """Let data leave again."""
        for client in self.clients:
            client.clear.set()

    async def cut(self) -> None:
        """Cut every connection there is, without a goodbye."""
        for server in self.servers:
            await trio.aclose_forcefully(server)
        self.servers.clear()


@define(eq=False)
class World:
    """What a test of the scheduler needs at hand."""

    scheduler: Scheduler
    network: Network

    @property
    def pool(self) -> Pool:
        """The scheduler's pool."""
        return self.scheduler.pool

    @property
    def emulator(self) -> Emulator:
        """The server."""
        assert isinstance(self.network.server, Emulator)
        return self.network.server

    def assert_quiet(self) -> None:
        """Nothing is leased, nobody waits, and lanes and holds agree on who belongs to whom."""
        stats = self.pool.stats()
        assert (stats.leased_lanes, stats.waiting, stats.leases) == (0, 0, ())
        for conn in self.pool._roster.ledger.open:
            for lane in conn.lanes:
                assert lane.hold is None or lane.hold.lane is lane
                assert (lane.hold is not None) == (lane.state is LaneState.HELD)


@asynccontextmanager
async def world(
    *,
    server: EmulatorSettings | ScriptedServer | None = None,
    lanes: Lanes | None = None,
    pool: PoolSettings | None = None,
    settings: SchedulerSettings | None = None,
    seed: int = 1,
    **endpoint: Any,
) -> AsyncIterator[World]:
    """Open a scheduler on a server of its own, an emulator or a scripted one."""
    serving = server if isinstance(server, ScriptedServer) else Emulator(server or EmulatorSettings())
    point = Endpoint.emulator("http://server/v1", lanes=lanes)
    if isinstance(serving, Emulator):
        point = point.with_(lanes=lanes or serving.settings.lanes, max_age=serving.settings.max_age)
    point = point.with_(**endpoint)
    # In virtual time a server says all it has to say in one instant: every read would wait for the next.
    pool = (pool or PoolSettings(min_idle=0)).with_(read_interval=0.0)
    async with trio.open_nursery() as nursery:
        network = Network(serving, nursery)
        dialer = Dialer(point, pool, network.connect)
        async with open_scheduler(
            point, pool_settings=pool, settings=settings, dial=dialer, rng=random.Random(seed)
        ) as scheduler:
            yield World(scheduler, network)
        nursery.cancel_scope.cancel()


def input_of(given: str | Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what is said as items."""
    return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else list(given)


async def take(
    conversation: Conversation,
    given: str | Sequence[Mapping[str, Any]],
    request: TurnRequest | None = None,
    *,
    on_event: OnEvent | None = None,
    ending: bool = True,
) -> Turn:
    """Take a turn and check that the server saw exactly the client's transcript."""
    expected = context_digest([*conversation.transcript, *input_of(given)])
    turn = await conversation.turn(given, request or asking("calls=0"), on_event=on_event)
    assert turn.payload["metadata"]["context"] == expected, turn.placement
    if ending and not turn.calls:
        assert turn.text.endswith(f"context:{expected}")
    return turn


def outputs(turn: Turn, text: str = "seen") -> list[Mapping[str, Any]]:
    """Answer every call of a turn."""
    return [{"type": "function_call_output", "call_id": call.call_id, "output": text} for call in turn.calls]


async def tool_loop(
    conversation: Conversation, request: TurnRequest, given: str, *, limit: int = 200
) -> list[Turn]:
    """Run a conversation until the model asks for nothing more; return its turns."""
    turns = [await take(conversation, given, request)]
    while turns[-1].calls:
        assert len(turns) < limit
        turns.append(await take(conversation, outputs(turns[-1], f"output {len(turns)}"), request))
    return turns

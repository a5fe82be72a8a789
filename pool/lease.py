"""The right to one lane for one turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field

from pool.connection import Connection
from pool.errors import ConnectionLost, LocalProtocolError
from pool.exchange import Exchange
from pool.slots import Lane
from pool.steering import Steering
from pool.wire.cycle import CycleState
from pool.wire.events import JSON, Encoded, RawClientEvent, ResponseCreate, ResponseSteer


@define(eq=False)
class Lease:
    """A lane of one connection, yours until released. Made by `Pool.lease` and `Pool.acquire`."""

    lane: Lane
    _connection: Connection | None
    _give_back: Callable[[Lease], None]
    _own: bool = False  # the lane was its holder's already
    waited: float = 0.0  # s, for the lane
    # S, what the conversation that was hot on the lane is expected to lose; 0: nobody was
    damage: float = 0.0
    exchange: Exchange | None = field(default=None, init=False)  # the last response started
    released: bool = field(default=False, init=False)

    def __repr__(self) -> str:
        return f"<Lease {self.lane}{' released' if self.released else ''}>"

    @property
    def connection_name(self) -> str:
        """The connection, as logs and statistics call it."""
        return str(self.lane.conn)

    @property
    def lane_name(self) -> str:
        """The lane, as logs and statistics call it."""
        return str(self.lane)

    def remembers(self, response_id: str | None) -> bool:
        """The server still holds this response in the connection's memory: a delta on this lease will do."""
        return (
            response_id is not None
            and self._connection is not None
            and self._connection.memory.holds(response_id)
        )

    async def send(self, event: ResponseCreate, *, stream: bool = False) -> Exchange:
        """Start a response; wait for it with `exchange.result()`, or read `exchange.batch()` when `stream`.

        It first waits, for a few seconds at most, for forks of the lane's latest response that have not begun yet.
        A cancelled caller waits until the frame has left or is refused (at most `send_timeout`), because half a
        frame would spoil the connection for the other lanes.

        Raises:
            LocalProtocolError: the lease is released, or a response is in flight.
            FrameTooLarge: nothing was sent; no socket of this endpoint will take the message.
            ConnectionLost: the server did not get it (`sent` is False).
        """
        exchange = await self._live().start(self.lane, event, streaming=stream)
        self.exchange = exchange  # only now: after an error the one before still counts
        return exchange

    async def steer(self, given: str | Sequence[JSON | Encoded]) -> Steering:
        """Give the response in flight more input; `answered()` of what is returned waits for the server's answer.

        The server stops the response where it can and goes on with a successor, which takes its place on the lane:
        the exchange ends with the successor, and `Finished.before` has what came before it.

        Raises:
            LocalProtocolError: no response is running, or it has not begun.
            FrameTooLarge, ConnectionLost: it was not sent.
        """
        if self.exchange is None or self.exchange.over:
            raise LocalProtocolError("no response is running on this lease")
        return await self._live().steer(self.exchange, given)

    async def post(self, event: ResponseSteer | RawClientEvent) -> None:
        """Send an event about the response in flight, e.g. a steer. Raises like `send`."""
        await self._live().post(event)

    def _live(self) -> Connection:
        if self.released:
            raise LocalProtocolError("this lease is released")
        if self._connection is None:
            raise ConnectionLost(f"{self.lane.conn} was closed before the send", sent=False)
        return self._connection

    @property
    def fouled(self) -> bool:
        """A response is still running, or the lane cannot be trusted: it must not be used as it is."""
        connection = self._connection
        if connection is None:
            return False
        cycle = connection.cycle(self.lane.stream_id)
        return cycle.state is not CycleState.IDLE

    @property
    def hot(self) -> bool:
        """The server remembers a response of this lease's holder on the lane."""
        tip = None if self._connection is None else self._connection.memory.tip(self.lane.stream_id)
        if tip is None or self._own:
            return tip is not None
        finished = self.exchange.finished if self.exchange is not None else None
        return finished is not None and finished.response_id == tip

    def release(self) -> None:
        """Give the lane back, whatever state it is in. Does nothing the second time."""
        if not self.released:
            self.released = True
            if self.exchange is not None:
                self.exchange.abandon()
            self._give_back(self)

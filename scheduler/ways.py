"""The ways a turn can go: a lane of the pool, or a line over HTTP. The shell around `transport`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import trio
from attrs import define, field, frozen

from pool.errors import DialFailed
from pool.http import HttpClient, Line
from pool.lease import Lease
from pool.pool import Pool
from pool.prospects import Prospects
from pool.slots import Hold
from pool.wire.cycle import Finished
from pool.wire.events import ResponseCreate, ServerEvent
from scheduler.estimate import Average, Estimates
from scheduler.recovery import Over
from scheduler.transport import PRIOR_OVERHEAD, RunLengths, TransportSetting, View, choose
from scheduler.turns import TurnRequest

LEAST_OVERHEAD = 0.02  # s; HTTP is never free, whatever the noise in the measurements says
# S, for the first connection of all, before a turn goes over HTTP (or five times a usual dial)
PATIENCE = 3.0
FALLBACK, OVERSIZE = "http:fallback", "http:oversize"


class Reply(Protocol):
    """A response in flight: an `Exchange` of a lane, or an `HttpExchange`."""

    @property
    def size(self) -> int:
        """Bytes of the request."""
        ...

    @property
    def sent_at(self) -> float:
        """When it was sent."""
        ...

    @property
    def first_event_at(self) -> float | None:
        """When the first event came."""
        ...

    @property
    def first_output_at(self) -> float | None:
        """When the first event beyond "it has started" came."""
        ...

    async def batch(self) -> list[ServerEvent]:
        """Wait for events; empty after the terminal one."""
        ...

    async def result(self) -> Finished:
        """Wait for the end."""
        ...


class Carrier(Protocol):
    """The right to one turn, whichever way it goes: a `Lease` or a `Line`."""

    @property
    def connection_name(self) -> str:
        """As logs and placements call it."""
        ...

    @property
    def lane_name(self) -> str:
        """As logs and placements call it."""
        ...

    @property
    def waited(self) -> float:
        """Seconds, for the lane."""
        ...

    @property
    def damage(self) -> float:
        """Seconds that the lane's last owner is expected to lose."""
        ...

    def remembers(self, response_id: str | None) -> bool:
        """The server has this response in the connection's memory."""
        ...

    async def send(self, event: ResponseCreate, *, stream: bool = False) -> Reply:
        """Start the response."""
        ...


@frozen(kw_only=True)
class Way:
    """Which way a turn goes, and what was weighed, in seconds; 0 where there was nothing to weigh."""

    over_http: str | None = None  # why, if it does
    http_cost: float = 0.0  # the rest of its run over HTTP
    dial_cost: float = 0.0


@define(eq=False)
class Ways:
    """Chooses the way of each turn of one scheduler, and learns what that needs."""

    pool: Pool
    http: HttpClient | None  # None: sockets only
    setting: TransportSetting
    estimates: Estimates
    _missing: bool = field(default=False, init=False)  # the endpoint has turned out to have no HTTP side
    _lengths: dict[tuple[str, bool], RunLengths] = field(factory=dict, init=False)
    _overhead: Average = field(factory=lambda: Average(PRIOR_OVERHEAD, 0.1), init=False)

    @property
    def optional(self) -> bool:
        """A turn may go either way."""
        return self.setting == "auto" and self.http is not None and not self._missing

    def choose(
        self,
        request: TurnRequest,
        hold: Hold,
        *,
        size: int,
        tokens: int,
        stored: bool,
        done: int,
        keeps: float = 1.0,
    ) -> Way:
        """Choose between a socket and HTTP.

        `size`: bytes of its message on a socket. `tokens`: of the context. `done`: turns of its run so far. `keeps`:
        the share of a replay's cost that a hot lane saves.
        """
        if not self.optional:
            return Way(over_http=choose(self.setting, View()))
        prospects = self.pool.prospects(hold, model=request.model)
        view = View(
            size=size,
            frame_cap=self.pool.endpoint.frame_cap,
            hot=prospects.hot,
            idle=prospects.idle,
            open=prospects.open,
            growing=prospects.growing,
            broken=prospects.broken or prospects.dialing >= _patience(prospects),
            dial=View().dial if prospects.dial is None else prospects.dial,
            overhead=max(LEAST_OVERHEAD, self._overhead.value),
            replay=keeps * self.estimates.replay(request.model).of(tokens, stored=stored),
            turns_left=self._runs(request).left(done),
        )
        reason = choose(self.setting, view)
        if reason == FALLBACK:
            self.pool.probe()
        if not view.weighed or reason in (FALLBACK, OVERSIZE):
            return Way(over_http=reason)
        return Way(over_http=reason, http_cost=view.over_http, dial_cost=view.dial)

    def lane(
        self, hold: Hold, *, near: Hold | None, holder: str, model: str
    ) -> AbstractAsyncContextManager[Lease]:
        """Lease a lane. Where HTTP would do as well, nobody waits long for a first connection that does not come.

        Raises (when entered):
            DialFailed: it did not come.
            PoolError: as `Pool.acquire`.
        """
        prospects = self.pool.prospects(hold)
        if prospects.open or not self.optional:
            return self.pool.lease(hold, near=near, holder=holder, model=model)
        return self._first_lane(hold, near, holder, model, patience=_patience(prospects))

    @asynccontextmanager
    async def _first_lane(
        self, hold: Hold, near: Hold | None, holder: str, model: str, *, patience: float
    ) -> AsyncIterator[Lease]:
        lease: Lease | None = None
        with trio.move_on_after(patience):
            lease = await self.pool.acquire(hold, near=near, holder=holder, model=model)
        if lease is None and not self.pool.prospects(hold).open:
            raise DialFailed(f"no connection within {patience:g} s")
        if lease is None:
            lease = await self.pool.acquire(hold, near=near, holder=holder, model=model)
        try:
            yield lease
        finally:
            lease.release()

    def line(self, *, holder: str) -> AbstractAsyncContextManager[Line]:
        """Give the right to one turn over HTTP."""
        assert self.http is not None
        return self.http.line(holder=holder)

    def over(self, reason: str | None) -> Over:
        """Say for `recover` which way a turn has gone, and whether there is another one."""
        if reason is None:
            return Over.SOCKET if self.optional else Over.SOCKETS
        return Over.HTTP if self.optional else Over.HTTP_ALONE

    def no_http(self) -> None:
        """The endpoint answers to nothing on its HTTP side: use sockets alone from now on."""
        self._missing = True

    def took(self, request: TurnRequest, *, tokens: int, stored: bool, seconds: float) -> None:
        """A turn over HTTP took so long to its first output: learn how much longer that is."""
        expected = self.estimates.replay(request.model).cold(tokens, stored=stored)
        self._overhead.add(seconds - expected)

    def ended(self, request: TurnRequest, turns: int) -> None:
        """A run has ended after so many turns."""
        self._runs(request).finished(turns)

    def _runs(self, request: TurnRequest) -> RunLengths:
        # Runs without tools are mostly one turn long, whatever those with tools do.
        return self._lengths.setdefault((request.model, bool(request.tools)), RunLengths())


def _patience(prospects: Prospects) -> float:
    return max(PATIENCE, 5 * (prospects.dial or 0.0))

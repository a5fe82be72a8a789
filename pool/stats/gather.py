"""A pool's snapshot, put together from its roster, its recorder and its connections."""

from __future__ import annotations

from collections.abc import Iterable

from pool.connection import Connection
from pool.roster import Roster
from pool.slots import ConnState
from pool.stats.recorder import Recorder
from pool.stats.snapshot import HttpStats, LeaseInfo, PoolStats


def gather(
    roster: Roster,
    seen: Recorder,
    connections: Iterable[Connection],
    *,
    capacity: int,
    gone: tuple[int, int],
    http: HttpStats,
    seconds: float,
    now: float,
) -> PoolStats:
    """Return the snapshot. `gone`: bytes sent and received on connections that ended; `seconds`: since it opened."""
    ledger, alive = roster.ledger, list(connections)
    sent, received = gone
    for connection in alive:
        wire = connection.wire  # None before it is open, and again while its closing handshake takes its time
        sent += connection.bytes_sent if wire is None else wire.bytes_out
        received += connection.bytes_received if wire is None else wire.bytes_in
    return PoolStats(
        endpoints=(roster.endpoint.name,),
        pools=1,
        capacity=capacity,
        dialing=len(ledger.dialing),
        open=len(ledger.open),
        leaving=len(ledger.leaving),
        draining=len(ledger.conns[ConnState.DRAINING]),
        idle_lanes=len(ledger.shelf),
        hot_lanes=len(ledger.shelf.held),
        leased_lanes=len(ledger.leased),
        waiting=len(roster.waiters),
        dial_rate=roster.pacer.rate,
        leases=tuple(
            LeaseInfo(lane=str(lane), holder=lane.holder, seconds=now - lane.since) for lane in ledger.leased
        ),
        seconds=seconds,
        opened=seen.opened,
        leased=seen.leased,
        losses=seen.losses.counts,
        closes=seen.closes.counts,
        dial_failures=seen.dial_failures.counts,
        strays=seen.strays + sum(connection.strays for connection in alive),
        bytes_sent=sent,
        bytes_received=received,
        wait=seen.wait.snapshot(),
        dial=seen.dial.snapshot(),
        warm_up=seen.warm_up.snapshot(),
        first_event=seen.first_event.snapshot(),
        first_token=seen.first_token.snapshot(),
        turn=seen.turn.snapshot(),
        rotation=seen.rotation.snapshot(),
        loop_lag=seen.loop_lag.snapshot(),
        http=http,
    )

"""What the listeners for metrics, the dashboard and health count of themselves."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from pool.boundary import Boundary
from pool.stats.rules import counter, gauge, part
from pool.stats.snapshot import Snapshot
from scheduler.telemetry.listener import Listener


@frozen(kw_only=True)
class ListenerStats(Snapshot):
    """One moment of all such listeners of a process together."""

    connections: int = gauge("Clients that are connected for metrics, the dashboard or health.")
    turned_away: int = counter("Connections that were one too many.")
    evicted: int = counter("Idle connections that were closed for new ones.")
    crashes: int = counter("Connections, and looks of the dashboard, lost by a bug of our own.")


@frozen(kw_only=True)
class Listening(Snapshot):
    """What is in /metrics beside the schedulers."""

    listener: ListenerStats = part(ListenerStats, "The listeners for metrics, dashboard and health.")


def stats_of(listeners: Iterable[Listener], boundaries: Iterable[Boundary] = ()) -> Listening:
    """Return what these count now; `boundaries` are of tasks that belong to them."""
    servers = [listener.server for listener in listeners]
    crashes = [one.crashes for one in servers] + [one.crashes for one in boundaries]
    return Listening(
        listener=ListenerStats(
            connections=sum(len(one.peers) for one in servers),
            turned_away=sum(one.peers.turned_away for one in servers),
            evicted=sum(one.peers.evictions for one in servers),
            crashes=sum(crashes),
        )
    )

"""The gateway's own numbers, beside those of its schedulers."""

from __future__ import annotations

from attrs import frozen

from pool.stats.rules import counter, gauge, part
from pool.stats.snapshot import Snapshot
from scheduler.gateway.gateway import Gateway


@frozen(kw_only=True)
class GatewayStats(Snapshot):
    """One moment of a gateway."""

    connections: int = gauge("Clients that are connected.")
    turns_running: int = gauge("Turns of clients under way.")
    upstreams: int = gauge("Keys that have sockets.")
    requests: int = counter("Requests of clients, and upgrades to WebSockets.")
    refused: int = counter("Requests answered with an error before anything else was said.")
    failed: int = counter("Turns over HTTP whose clients were told of the failure on the stream.")
    turned_away: int = counter("Connections that were one too many.")
    evicted: int = counter("Idle connections that were closed for new ones.")
    body_bytes: int = gauge("Of requests that are read, or whose turns have not ended.", unit="bytes")
    bodies_refused: int = counter("Requests for whose bodies there was no room.")
    crashes: int = counter("Connections and upstreams lost by a bug of the gateway's own.")
    remembered: int = gauge("Responses that can be gone on from.")
    forgotten: int = counter("Responses that had to make room.")
    memory: int = gauge("That the transcripts take.", unit="bytes")


@frozen(kw_only=True)
class Figures(Snapshot):
    """What is shown beside the schedulers."""

    gateway: GatewayStats = part(GatewayStats, "The gateway.")


def figures_of(gateway: Gateway) -> Figures:
    """Return what a gateway counts now."""
    counts, library, peers = gateway.counts, gateway.core.library, gateway.clients.peers
    return Figures(
        gateway=GatewayStats(
            connections=gateway.connections,
            turns_running=len(gateway.core.running),
            upstreams=len(gateway.upstreams.all),
            requests=counts["requests"],
            refused=counts["refused"],
            failed=counts["failed"],
            turned_away=peers.turned_away,
            evicted=peers.evictions,
            body_bytes=gateway.bodies.held,
            bodies_refused=gateway.bodies.refused,
            crashes=gateway.crashes + gateway.upstreams.crashes,
            remembered=len(library),
            forgotten=library.evicted,
            memory=library.size,
        )
    )

"""What an operator is shown of a running gateway: tables of plain values, without contents and secrets. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import frozen

from pool.errors import SettingsError
from pool.slots import BUSY, LaneState
from pool.stats.view import PoolView
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.spool import Spool
from scheduler.gateway.upstreams import Upstream

Value = str | int | float | bool | None


@frozen(kw_only=True)
class Table:
    """Rows under columns. Times are in seconds, sizes in bytes."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]


def table_of(what: str, gateway: Gateway, *, now: float, settings: Sequence[Sequence[Value]]) -> Table:
    """Return one of the tables. Raises `SettingsError` for one that there is not."""
    if what == "settings":
        return Table(columns=("name", "value", "source"), rows=settings)
    if what == "stats":
        return Table(columns=("name", "value"), rows=_stats(gateway))
    if what == "keys":
        return _keys(gateway)
    if what == "clients":
        counts = gateway.addresses.most_common()
        return Table(
            columns=("address", "connections"), rows=[(address or "-", count) for address, count in counts]
        )
    if what not in _TABLES:
        raise SettingsError("show", what, f"there is {', '.join(SHOWN)}")
    columns, rows_of = _TABLES[what]
    upstreams = sorted(gateway.upstreams.all, key=lambda one: one.name)
    rows = [(one.name, *row) for one in upstreams for row in rows_of(one, one.scheduler.pool.view(), now)]
    return Table(columns=("upstream", *columns), rows=rows)


_BROKEN = {"open": "down", "half-open": "probing"}  # by the state of the breaker over its dials


def _pools(upstream: Upstream, view: PoolView, now: float) -> Iterable[Sequence[Value]]:
    stats = upstream.scheduler.pool.stats()
    state = "stopped" if view.stopped else "paused" if view.paused else "active"
    yield (
        _BROKEN.get(view.breaker, state),
        upstream.users,
        stats.open + stats.leaving + stats.draining,
        stats.dialing,
        view.busy_lanes,
        view.usable_lanes,
        stats.hot_lanes,
        stats.waiting,
        stats.lost,
        stats.rotated,
    )


def _connections(_upstream: Upstream, view: PoolView, now: float) -> Iterable[Sequence[Value]]:
    for conn in view.connections:
        age = None if conn.opened_at is None else round(now - conn.opened_at, 1)
        left = None if conn.retire_at is None else round(conn.retire_at - now, 1)
        yield (conn.name, conn.state.value, age, left, conn.busy, conn.hot, conn.lanes_total)


def _lanes(_upstream: Upstream, view: PoolView, now: float) -> Iterable[Sequence[Value]]:
    for conn in view.connections:
        for lane in conn.lanes:
            state = "hot" if lane.state is LaneState.HELD else lane.state.value
            who = lane.holder if lane.state in BUSY else lane.conversation
            yield (conn.name, lane.name, state, who, round(now - lane.since, 1))


def _conversations(upstream: Upstream, _view: PoolView, now: float) -> Iterable[Sequence[Value]]:
    for point, live in upstream.standing.items():
        conversation = live.conversation
        yield (
            conversation.name,
            point.model,
            point.response_id,
            len(conversation.encoded),
            point.tokens,
            round(now - live.used_at, 1),
        )


def _waiters(_upstream: Upstream, view: PoolView, now: float) -> Iterable[Sequence[Value]]:
    for waiter in view.waiters:
        yield (waiter.who, waiter.wants, waiter.lane, waiter.behind, round(now - waiter.since, 1))


_Rows = Callable[[Upstream, PoolView, float], Iterable[Sequence[Value]]]
_TABLES: Mapping[str, tuple[Sequence[str], _Rows]] = {
    "pools": (
        ("state", "users", "open", "dialing", "busy", "of", "hot", "waiting", "lost", "rotated"),
        _pools,
    ),
    "connections": (("name", "state", "age", "retires_in", "busy", "hot", "lanes"), _connections),
    "lanes": (("connection", "lane", "state", "conversation", "seconds"), _lanes),
    "conversations": (("name", "model", "response", "items", "tokens", "idle"), _conversations),
    "waiters": (("who", "wants", "lane", "behind", "seconds"), _waiters),
}
COLUMNS = {name: columns for name, (columns, _) in _TABLES.items()}  # after that of the upstream
SHOWN = (*_TABLES, "clients", "keys", "stats", "settings")


def _stats(gateway: Gateway) -> list[Sequence[Value]]:
    library = gateway.core.library
    rows: list[Sequence[Value]] = [
        ("connections", gateway.connections),
        ("turns_running", len(gateway.core.running)),
        *sorted(gateway.counts.items()),
        ("turned_away", gateway.clients.peers.turned_away),
        ("evicted", gateway.clients.peers.evictions),
        ("body_bytes", gateway.bodies.held),
        ("bodies_refused", gateway.bodies.refused),
        ("crashes", gateway.crashes + gateway.upstreams.crashes),
        ("responses_remembered", len(library)),
        ("responses_forgotten", library.evicted),
        ("ids_remembered", len(gateway.core.ownership)),
        ("memory_bytes", library.size),
        *_spool(gateway.spool),
    ]
    stats = gateway.upstreams.stats
    rows += [
        ("turns", stats.turns),
        ("bytes_sent", stats.bytes_sent),
        ("bytes_saved", stats.bytes_saved),
        ("tokens_saved", stats.tokens_saved),
    ]
    return [*rows, *((f"turns {reason}", count) for reason, count in sorted(stats.placements.items()))]


def _spool(spool: Spool | None) -> Iterable[Sequence[Value]]:
    if spool is None:
        return ()
    return (
        ("spool_bytes", spool.size),
        ("spool_written", spool.written),
        ("spool_restored", spool.restored),
        ("spool_removed", spool.removed),
        ("spool_dropped", spool.dropped),
        ("spool_damaged", spool.damaged),
        ("spool_failures", spool.failures),
    )


_LIMITS = {
    "name": "name",
    "tenant": "tenant",
    "weight": "weight",
    "priority": "priority",
    "in_flight": "max_in_flight",
    "requests/min": "requests_per_minute",
    "tokens/min": "tokens_per_minute",
}


def _keys(gateway: Gateway) -> Table:
    rows = [
        (*(getattr(key, name) for name in _LIMITS.values()), ",".join(key.endpoints))
        for key in gateway.keys.keys
    ]
    return Table(columns=(*_LIMITS, "endpoints"), rows=rows)

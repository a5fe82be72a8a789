"""One moment of a scheduler as JSON: what the page shows and `warmline top` prints. Pure.

Times are seconds on the server's clock, `now` is the frame's: so what stands still is the same in the next frame, and
need not be sent again. `conns` and `rows` are keyed, and change key by key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from heapq import nlargest
from typing import Any

from pool.slots import ConnState, LaneState
from pool.stats.view import ConnView, PoolView
from scheduler.admission.view import AdmissionView, Used
from scheduler.dashboard.history import STEP, WARM, History, Recent
from scheduler.dashboard.look import Look
from scheduler.dashboard.verdict import judge
from scheduler.fleet.report import WHY

Frame = dict[str, Any]

LETTERS = {  # of a lane, in the order of its index; a free one is a point
    LaneState.LEASED: "b",
    LaneState.HELD: "h",
    LaneState.FOULED: "f",
    LaneState.DEAD: "x",
}
LONGEST = 8  # turns in flight that are listed
LOSSES = 8
WAITERS = 8


def frame_of(look: Look, history: History, *, source: str, sources: Sequence[str]) -> Frame:
    """Return the frame of a moment."""
    pool, admission, now = look.pool, look.admission, look.now
    recent = history.recent(look.stats, now=now)
    return {
        "now": round(now, 3),
        "step": STEP,
        "source": source,
        "sources": list(sources),
        "pool": _pool(pool),
        "verdict": [[notice.level, notice.kind, notice.text] for notice in judge(look, recent)],
        "figures": _figures(look, recent),
        "conns": {str(conn.id): _conn(conn) for conn in pool.connections},
        "rows": {f"{row.at:.3f}": row.to_json() for row in history.rows},
        "waiters": [
            [one.who, round(one.since, 3), one.wants, one.lane, one.behind] for one in pool.waiters[:WAITERS]
        ],
        "longest": _longest(pool),
        "losses": [
            [loss.connection, round(loss.at, 3), loss.kind, loss.cause, round(loss.age, 1), loss.turns]
            for loss in pool.losses[:LOSSES]
        ],
        "reasons": _reasons(look.stats.placements, recent),
        "retries": dict(look.stats.retries),
        "moves": {name: count for name, count in look.stats.moves.items() if count},
        "tenants": _tenants(look),
        "models": _models(admission),
        "replays": {
            "spent": look.replays.spent,
            "per_minute": None if math.isinf(look.replays.per_minute) else look.replays.per_minute,
            "blocked": look.replays.wait > 0,
        },
    }


def connection_of(look: PoolView, number: int) -> dict[str, Any] | None:
    """Return what is shown of one connection when somebody points at it; None: it is gone."""
    conn = next((conn for conn in look.connections if conn.id == number), None)
    if conn is None:
        return None
    return {
        "id": conn.id,
        "conn": _conn(conn),
        "successor": conn.successor,
        "lanes": [
            [lane.name, lane.state.value, lane.conversation, lane.holder, round(lane.since, 3)]
            for lane in conn.lanes
        ],
    }


def _pool(pool: PoolView) -> Frame:
    return {
        "endpoint": pool.endpoint,
        "cap": pool.max_age if math.isfinite(pool.max_age) else None,
        "max": pool.max_connections,
        "lanes_each": pool.lanes_each,
        "breaker": pool.breaker,
        "dial_rate": round(pool.dial_rate, 3),
    }


def _conn(conn: ConnView) -> list[Any]:
    letters = ["."] * conn.lanes_total
    for lane in conn.lanes:
        letters[lane.index] = LETTERS[lane.state]
    started = conn.since if conn.opened_at is None else conn.opened_at
    retire = None if conn.retire_at is None else round(conn.retire_at, 3)
    return [conn.state.value, round(started, 3), retire, conn.in_flight_limit, "".join(letters)]


def _figures(look: Look, recent: Recent) -> Frame:
    pool, stats = look.pool, look.stats
    states = [conn.state for conn in pool.connections]
    admitted = stats.admission
    oldest = min((one.since for one in pool.waiters[:1]), default=look.admission.waiting_since)
    return {
        "busy": pool.busy_lanes,
        "usable": pool.usable_lanes,
        "most": pool.max_connections * pool.lanes_each,
        "waiting": pool.waiting,
        "held_back": look.admission.waiting,
        "waiting_since": None if oldest is None else round(oldest, 3),
        "open": states.count(ConnState.OPEN),
        "dialing": states.count(ConnState.DIALING),
        "leaving": states.count(ConnState.LEAVING),
        "draining": states.count(ConnState.DRAINING),
        "turns": stats.turns,
        "turns_recent": recent.turns,
        "hot_recent": recent.hot,
        "returning_recent": recent.returning,
        "recent_seconds": round(recent.seconds),
        "lost": stats.pool.lost,
        "lost_recent": recent.lost,
        "rotated": stats.pool.rotated,
        "dials_failed": stats.pool.dials_failed,
        "runs": admitted.runs,
        "runs_waiting": admitted.runs_waiting,
        "tokens_saved": stats.tokens_saved,
        "p50": [round(each.p50, 6) for each in (stats.wait, stats.first_event, stats.turn)],
        "p99": [round(each.p99, 6) for each in (stats.wait, stats.first_event, stats.turn)],
        "seconds": round(stats.pool.seconds),
    }


def _longest(pool: PoolView) -> list[list[Any]]:
    """Return the turns that have been in flight for longest."""
    busy = [
        (lane.since, f"{conn.name}/{lane.name}", lane.conversation or lane.holder, lane.state.value)
        for conn in pool.connections
        for lane in conn.lanes
        if lane.state in (LaneState.LEASED, LaneState.FOULED)
    ]
    return [
        [who, lane, state, round(since, 3)]
        for since, lane, who, state in nlargest(LONGEST, busy, key=lambda one: -one[0])
    ]


def _reasons(placements: Mapping[str, int], recent: Recent) -> list[list[Any]]:
    """Return why turns travelled as they did: name, words, in the last minute, in all; the warm ones first."""
    names = sorted(placements, key=lambda name: (name not in WARM, -placements[name], name))
    return [[name, WHY.get(name, ""), recent.placements.get(name, 0), placements[name]] for name in names]


def _tenants(look: Look) -> list[list[Any]]:
    waits = look.stats.admission.waits
    rows: list[list[Any]] = []
    for one in look.admission.tenants:
        wait = waits.get(one.name)
        rows.append(
            [
                one.name,
                one.weight,
                one.in_flight,
                one.cap,
                one.waiting,
                None if wait is None else wait.count,
                None if wait is None else round(wait.p50, 6),
                None if wait is None else round(wait.p99, 6),
            ]
        )
    return rows


def _models(admission: AdmissionView) -> list[list[Any]]:
    return [
        [
            model.name,
            model.in_flight,
            None if model.limit is None else int(model.limit),
            None if model.held_until is None else round(model.held_until, 3),
            _used(model.requests),
            _used(model.tokens),
        ]
        for model in admission.models
    ]


def _used(used: Used | None) -> list[int] | None:
    return None if used is None else [used.used, used.limit]

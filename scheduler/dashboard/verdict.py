"""How things stand, in words: the sentence at the top of the page, and of `warmline top`. Pure.

Theory of operation
    Each rule looks at one thing and says nothing, or one sentence with a level: `bad` (turns cannot go on), `warn`
    (something is scarce, refused or lost), `note` (worth knowing). The worst comes first; if there is none, all is
    well, and that is said too. The sentences carry numbers but no running clocks, and each has a `kind` that stays
    the same while the numbers change, so that a screen reader is told what is new and not what ticks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from pool.slots import ConnState
from pool.stats.view import PoolView
from scheduler.admission.view import AdmissionView, ModelView
from scheduler.dashboard.history import Recent
from scheduler.dashboard.look import Look
from scheduler.fleet.report import WHY

Level = Literal["ok", "note", "warn", "bad"]
FIRST = ("bad", "warn", "ok", "note")
ENOUGH = 20  # returning turns in the last minute, before their hot share says something
HOT_ENOUGH = 0.8


@frozen(kw_only=True)
class Notice:
    """One sentence."""

    level: Level
    kind: str
    text: str


def judge(look: Look, recent: Recent) -> tuple[Notice, ...]:
    """Return what is to be said, the worst first; never nothing."""
    pool = look.pool
    said = [
        *_dials(pool),
        *_lanes(pool),
        *_admission(look.admission, pool),
        *_replays(look),
        *_hot(recent),
        *_losses(pool, recent),
        *_rotation(pool),
    ]
    if not any(notice.level in ("bad", "warn") for notice in said):
        said.append(_well(pool, waiting=look.waiting))
    return tuple(sorted(said, key=lambda notice: FIRST.index(notice.level)))


def plural(count: int, one: str, many: str = "") -> str:
    """Say how many."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _count(pool: PoolView, *states: ConnState) -> int:
    return sum(1 for conn in pool.connections if conn.state in states)


def _dials(pool: PoolView) -> Iterator[Notice]:
    if pool.breaker != "closed" and not pool.stopped:
        failed = next((loss for loss in pool.losses if loss.kind == "dial failed"), None)
        last = f" The last one: {failed.cause}" if failed is not None else ""
        open_ = _count(pool, ConnState.OPEN, ConnState.LEAVING)
        still = f" {plural(open_, 'connection is', 'connections are')} still open." if open_ else ""
        yield Notice(
            level="warn" if open_ else "bad", kind="dials", text=f"Dials keep failing.{still}{last}".rstrip()
        )


def _lanes(pool: PoolView) -> Iterator[Notice]:
    if pool.stopped:
        yield Notice(level="note", kind="stopped", text="The pool is closing: it grants no lanes any more.")
        return
    if pool.paused:
        yield Notice(level="warn", kind="paused", text="Paused: no lane is granted until somebody resumes.")
    if not pool.waiting:
        return
    who = plural(pool.waiting, "waiter")
    busy, usable = pool.busy_lanes, pool.usable_lanes
    coming = _count(pool, ConnState.DIALING)
    size = coming + _count(pool, ConnState.OPEN)
    if pool.paused:
        yield Notice(level="warn", kind="waiting:paused", text=f"{who}: the pool is paused.")
    elif coming and busy >= usable:
        what = plural(coming, "connection is being dialled", "connections are being dialled")
        yield Notice(level="note", kind="waiting:dial", text=f"{who}: {what}.")
    elif busy >= usable and size >= pool.max_connections:
        lanes = "the only lane is" if usable == 1 else f"all {usable:,} lanes are"
        most = f"{plural(pool.max_connections, 'connection')}, the maximum"
        yield Notice(level="warn", kind="waiting:lanes", text=f"{who}: {lanes} busy ({most}).")
    elif busy >= usable and pool.next_dial_at > pool.now:
        text = f"{who}: dials are held back (at most {pool.dial_rate:.3g} a second now)."
        yield Notice(level="warn", kind="waiting:paced", text=text)
    else:
        yield Notice(level="note", kind="waiting:own", text=f"{who}, each for a certain lane or a fresh one.")


def _admission(admission: AdmissionView, pool: PoolView) -> Iterator[Notice]:
    limits = [why for model in admission.models for why in _limits(model)]
    waiting = plural(admission.waiting, "turn waits", "turns wait") + " for admission"
    if not admission.waiting:
        for model in admission.models:
            if model.limit is not None:
                text = f"{model.name} is kept to {plural(int(model.limit), 'turn')} in flight after refusals."
                yield Notice(level="note", kind=f"limited:{model.name}", text=text)
    elif limits:
        yield Notice(level="warn", kind="admission:limits", text=f"{waiting}: {'; '.join(limits[:3])}.")
    elif admission.capacity is not None and admission.in_flight >= admission.capacity:
        text = (
            f"{waiting}: {plural(admission.in_flight, 'turn is', 'turns are')} in flight, as many as may be."
        )
        yield Notice(level="warn", kind="admission:capacity", text=text)
    else:
        full = [one.name for one in admission.tenants if one.cap is not None and one.in_flight >= one.cap]
        why = (
            f"{', '.join(full[:3])} {'is' if len(full) == 1 else 'are'} at the cap"
            if full
            else "their turn will come"
        )
        yield Notice(level="note", kind="admission:caps", text=f"{waiting}: {why}.")


def _limits(model: ModelView) -> Iterator[str]:
    if model.held_until is not None:
        yield f"the server asked to wait with {model.name}"
    elif model.limit is not None and model.in_flight >= int(model.limit):
        yield f"{model.name} is kept to {int(model.limit):,} in flight after refusals"
    for what, used in (("requests", model.requests), ("tokens", model.tokens)):
        if used is not None and used.used >= 0.95 * used.limit:
            yield f"{model.name} has used its {what} of this minute ({used.used:,} of {used.limit:,})"


def _replays(look: Look) -> Iterator[Notice]:
    if look.replays.wait > 0:
        text = f"Recovery has spent its budget of {look.replays.per_minute:,.0f} tokens a minute: what failed waits."
        yield Notice(level="warn", kind="replays", text=text)


def _hot(recent: Recent) -> Iterator[Notice]:
    returning, hot = recent.returning, recent.hot
    if returning < ENOUGH or hot >= HOT_ENOUGH * returning:
        return
    cold = {
        reason: count
        for reason, count in recent.placements.items()
        if reason.startswith("replay:") and reason != "replay:new"
    }
    worst = max(cold, key=lambda reason: cold[reason], default="")
    meaning = f" ({WHY[worst].partition(': ')[2]})" if worst in WHY else ""
    why = f" Most of the others: {worst}{meaning}." if worst else ""
    text = f"Only {100 * hot // returning} % of the returning turns were hot in the last minute.{why}"
    yield Notice(level="warn", kind="cold", text=text)


def _losses(pool: PoolView, recent: Recent) -> Iterator[Notice]:
    if recent.lost:
        latest = next((loss for loss in pool.losses if loss.kind == "lost"), None)
        why = "" if latest is None else f", the latest {latest.cause}"
        were = plural(recent.lost, "connection was", "connections were")
        yield Notice(level="warn", kind="lost", text=f"{were} lost in the last minute{why}.")


def _rotation(pool: PoolView) -> Iterator[Notice]:
    going = _count(pool, ConnState.LEAVING, ConnState.DRAINING)
    if going and not pool.stopped:
        are = plural(going, "connection is", "connections are")
        yield Notice(
            level="note", kind="rotating", text=f"{are} being replaced or closed while their turns go on."
        )


def _well(pool: PoolView, *, waiting: int) -> Notice:
    open_ = _count(pool, ConnState.OPEN, ConnState.LEAVING)
    if not open_ and not waiting:
        text = "Idle: no connection is open, and nobody asks for one."
    elif not pool.busy_lanes and not waiting:
        text = f"Idle: {plural(open_, 'connection is', 'connections are')} warm, no turn is in flight."
    else:
        who = "" if waiting else ", nobody waits"
        text = f"All well: {pool.busy_lanes:,} of {pool.usable_lanes:,} lanes busy{who}."
    return Notice(level="ok", kind="ok", text=text)

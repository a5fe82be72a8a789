"""On whose behalf a run or a conversation speaks, how urgent it is, and until when. Inherited by what is nested."""

from __future__ import annotations

import math
from contextvars import ContextVar

from attrs import define, field

from pool.errors import SettingsError
from scheduler.admission.tenant import DEFAULT_TENANT, check_name


@define(eq=False, kw_only=True)
class Ticket:
    """What admission knows of a run, or of a conversation outside one. Times are on trio's clock."""

    tenant: str = DEFAULT_TENANT
    priority: float = 0.0
    started: float = 0.0
    deadline: float = math.inf
    parent: Ticket | None = None  # the run in whose tool this one was started
    owner: object = field(default=None, repr=False)  # the admission that made it
    over: bool = field(default=False, init=False)  # the run has ended
    watched: bool = field(default=False, init=False)  # a cancel scope sees to the deadline
    queued: bool = field(default=False, init=False)  # waits for a slot right now
    turns: int = field(default=0, init=False)  # completed


current: ContextVar[Ticket | None] = ContextVar("warmline run", default=None)


def parent_of(owner: object, explicit: Ticket | None) -> Ticket | None:
    """Return the live run of this admission in whose tool the caller is, if it is in one."""
    parent = explicit if explicit is not None else current.get()
    # A task that outlived its run keeps the context of it, and threads and other event loops get a copy.
    return parent if parent is not None and parent.owner is owner and not parent.over else None


def make_ticket(
    owner: object,
    parent: Ticket | None,
    *,
    like: Ticket | None,
    tenant: str | None,
    priority: float | None,
    deadline: float | None,
    now: float,
) -> Ticket:
    """Return a ticket; what is None is that of `like`, else the parent's. No deadline is later than theirs.

    Raises:
        SettingsError: a value is out of range.
    """
    if tenant is not None:
        check_name(tenant)
    if priority is not None and not _is_number(priority):
        raise SettingsError("priority", priority, "must be a number; the higher goes first, 0 is usual")
    if deadline is not None and not (_is_number(deadline) and deadline > 0):
        raise SettingsError("deadline", deadline, "must be seconds from the start, above 0")
    inherited = like or parent or Ticket()
    latest = min(one.deadline for one in (inherited, parent or inherited))
    return Ticket(
        tenant=inherited.tenant if tenant is None else tenant,
        priority=inherited.priority if priority is None else priority,
        started=now,
        deadline=latest if deadline is None else min(latest, now + deadline),
        parent=parent,
        owner=owner,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

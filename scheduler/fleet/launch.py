"""A fleet with everything it needs around it: a scheduler of its own, somebody to attend to it, a report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio
from attrs import frozen

from pool.errors import DialFailed
from pool.settings import Endpoint, PoolSettings
from pool.stats import Summary
from scheduler.agent import Agent
from scheduler.fleet.fleet import Fleet, OnResult
from scheduler.fleet.report import Connections, FleetReport, Runs
from scheduler.fleet.tasks import TaskLike
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.settings import SchedulerSettings

UPGRADE_REQUIRED = 426
Attend = Callable[[Fleet], Awaitable[None]]


@frozen(kw_only=True)
class Landed:
    """How it went. `fault` ended the fleet early; the report tells of what was done until then."""

    report: FleetReport
    fault: Exception | None = None


async def launch(
    tasks: Iterable[TaskLike],
    agent: Agent,
    endpoint: Endpoint,
    *,
    pool_settings: PoolSettings,
    settings: SchedulerSettings | None = None,
    concurrency: int,
    on_result: OnResult | None = None,
    attend: Attend | None = None,
    total: int | None = None,
    skipped: int = 0,
) -> Landed:
    """Open a scheduler, run the tasks, close it, report.

    `attend` runs beside the fleet until it has ended. `total` counts all tasks, also the `skipped` ones that are
    not among `tasks`; None: those that ended.
    """
    started = trio.current_time()
    transport = (settings or SchedulerSettings()).transport
    fault: Exception | None = None
    async with open_scheduler(endpoint, pool_settings=pool_settings, settings=settings) as scheduler:
        fleet = Fleet(agent, scheduler, concurrency=concurrency)
        async with trio.open_nursery() as nursery:
            try:
                if transport != "http":
                    await first_contact(scheduler, fall_back=transport == "auto" and bool(endpoint.http_url))
                if attend is not None:
                    nursery.start_soon(attend, fleet)
                await fleet.run(tasks, on_result=on_result)
            except Exception as error:  # kept aside: raised in here it would arrive in an exception group
                fault = error
            nursery.cancel_scope.cancel()
        report = report_on(
            fleet,
            scheduler,
            seconds=trio.current_time() - started,
            total=total,
            skipped=skipped,
            error=None if fault is None else str(fault),
        )
    return Landed(report=report, fault=fault)


async def first_contact(scheduler: Scheduler, *, fall_back: bool) -> None:
    """Get one connection before any task starts: a wrong URL or key shows at once, and not once a task.

    Later the pool's and the scheduler's patience with outages is right; here it would only keep a person waiting.
    With `fall_back` a server that speaks no WebSocket is not wrong: turns go over HTTP then.
    """
    try:
        async with scheduler.pool.lease(holder="first contact"):
            pass
    except DialFailed as error:
        if error.status != UPGRADE_REQUIRED or not fall_back:
            raise


def report_on(
    fleet: Fleet, scheduler: Scheduler, *, seconds: float, total: int | None, skipped: int, error: str | None
) -> FleetReport:
    """Gather what fleet, scheduler and pool know."""
    counts, turns = fleet.counts(), scheduler.stats()
    pool = turns.pool
    return FleetReport(
        runs=Runs(
            total=counts.ended + skipped if total is None else total,
            completed=counts.completed,
            failed=counts.failed,
            cancelled=counts.cancelled,
            skipped=skipped,
        ),
        seconds=seconds,
        endpoint=scheduler.pool.endpoint.name,
        turns=turns.turns,
        placements=dict(turns.placements),
        retries=dict(turns.retries),
        tools_executed=counts.tools_executed,
        tools_failed=counts.tools_failed,
        connections=Connections(opened=pool.opened, lost=pool.lost, rotated=pool.rotated),
        first_event=Summary.of(turns.first_event),
        turn=Summary.of(turns.turn),
        bytes_sent=turns.bytes_sent,
        bytes_saved=turns.bytes_saved,
        tokens_saved=turns.tokens_saved,
        usage=turns.usage,
        error=error,
        stats=turns,
    )

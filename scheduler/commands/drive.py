"""What `warmline run` does once its options are plain: the emulator, the fleet, its display, its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import trio
from attrs import evolve, frozen

from pool.settings import Endpoint, PoolSettings
from scheduler.agent import Agent
from scheduler.commands.display import Display, keep_showing
from scheduler.commands.embedded import EmbeddedSettings, embedded_emulator
from scheduler.commands.endpoints import EndpointChoice
from scheduler.commands.notices import Notices
from scheduler.commands.stopping import SIGNALS, Stopper
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.journal import Journal
from scheduler.fleet.launch import Landed, launch
from scheduler.fleet.progress import Progress
from scheduler.fleet.report import FleetReport, Runs
from scheduler.fleet.results import TaskResult
from scheduler.fleet.source import TaskFile
from scheduler.fleet.tasks import Task
from scheduler.scheduler import Scheduler
from scheduler.settings import SchedulerSettings
from scheduler.telemetry.options import TelemetryChoice, open_telemetry
from scheduler.transport import TransportSetting

SYNC_INTERVAL = 5.0
FAILURES_SHOWN = 5


@frozen(kw_only=True)
class Flight:
    """Everything that one `warmline run` needs, checked."""

    tasks: TaskFile
    agent: Agent
    journal: Journal
    choice: EndpointChoice
    endpoint: Endpoint | None  # None: the emulator has to be started first
    embedded: EmbeddedSettings
    connections: int | None
    concurrency: int
    transport: TransportSetting = "auto"
    tenant: str | None = None  # of tasks that name none
    grace: float
    telemetry: TelemetryChoice
    display: Display
    skipped: int = 0  # tasks that are completed already

    @property
    def at_once(self) -> int:
        """Runs at a time: no more than there are."""
        return min(self.concurrency, len(self.tasks) - self.skipped)

    def left(self) -> Iterator[Task]:
        """Yield the tasks that are not completed."""
        for task in self.tasks:
            if task.id not in self.journal.finished:
                yield task if self.tenant is None or task.tenant else evolve(task, tenant=self.tenant)

    def pool_settings(self, endpoint: Endpoint) -> PoolSettings:
        """Without --connections: few where a connection has lanes, else one for each run, so that it stays hot."""
        settings = PoolSettings(max_waiters=max(10_000, self.concurrency))
        lanes = endpoint.lanes.in_flight
        default = settings.max_connections if lanes > 1 else self.at_once
        return settings.with_(max_connections=default if self.connections is None else self.connections)


async def drive(flight: Flight, notices: Notices) -> Landed | None:
    """Run the fleet and report. None: it was interrupted before there was one."""
    landed: list[Landed] = []
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            stopper = Stopper(nursery.cancel_scope, flight.grace, flight.display.say)
            nursery.start_soon(stopper.watch, signals)
            async with AsyncExitStack() as stack:
                endpoint = flight.endpoint
                if endpoint is None:
                    url = await stack.enter_async_context(embedded_emulator(flight.embedded))
                    endpoint = flight.choice.build(url)
                # Also when it is closed: its last interval is written when the log ends.
                sources: dict[str, Scheduler] = {}
                telemetry = open_telemetry(flight.telemetry, lambda: sources, say=flight.display.say)
                await stack.enter_async_context(telemetry)
                landed.append(await _fly(flight, endpoint, stopper, notices, sources))
            await trio.to_thread.run_sync(flight.journal.sync)
            nursery.cancel_scope.cancel()
    if not landed:
        return None
    report = evolve(landed[0].report, results_file=flight.journal.path, signal=stopper.signal)
    return Landed(report=report, fault=landed[0].fault)


async def _fly(
    flight: Flight, endpoint: Endpoint, stopper: Stopper, notices: Notices, sources: dict[str, Scheduler]
) -> Landed:
    started, left = trio.current_time(), len(flight.tasks) - flight.skipped
    failures = 0

    def keep(result: TaskResult) -> None:
        nonlocal failures
        flight.journal.append(result)
        if result.error is not None:
            failures += 1
            if failures <= FAILURES_SHOWN:
                more = "; further failures stand in the results only" if failures == FAILURES_SHOWN else ""
                flight.display.say(f"{result.id} failed: {result.error.type}: {result.error.message}{more}")

    async def attend(fleet: Fleet) -> None:
        stopper.fleet, sources[""] = fleet, fleet.scheduler
        notices.muted = False

        def moment() -> Progress:
            counts = fleet.counts()
            return Progress(
                total=left,
                ended=counts.ended,
                failed=counts.failed,
                running=counts.running,
                turns=counts.turns,
                hot=counts.deltas,
                elapsed=trio.current_time() - started,
                note=stopper.note,
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_showing, flight.display, moment)
            nursery.start_soon(_keep_safe, flight.journal)

    return await launch(
        flight.left(),
        flight.agent,
        endpoint,
        pool_settings=flight.pool_settings(endpoint),
        settings=SchedulerSettings(transport=flight.transport),
        concurrency=flight.at_once,
        on_result=keep,
        attend=attend,
        total=len(flight.tasks),
        skipped=flight.skipped,
    )


def nothing_to_do(flight: Flight) -> Landed:
    """Report on a resumed fleet whose tasks are all completed: no connection is needed to say so."""
    runs = Runs(total=flight.skipped, skipped=flight.skipped)
    name = "emulator" if flight.endpoint is None else flight.endpoint.name
    return Landed(report=FleetReport(runs=runs, seconds=0.0, endpoint=name, results_file=flight.journal.path))


async def _keep_safe(journal: Journal) -> None:
    written = 0
    while True:
        await trio.sleep(SYNC_INTERVAL)
        if journal.written != written:
            written = journal.written
            await trio.to_thread.run_sync(journal.sync)

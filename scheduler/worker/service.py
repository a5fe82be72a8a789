"""One worker process: everything that `warmline work` was given, checked; then work until told to stop."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import trio
from attrs import evolve, field, frozen

from pool.settings import Endpoint, PoolSettings
from scheduler.agent import Agent
from scheduler.commands.display import Quiet
from scheduler.commands.embedded import EmbeddedSettings, embedded_emulator
from scheduler.commands.endpoints import EndpointChoice
from scheduler.commands.notices import logging_to
from scheduler.commands.stopping import SIGNALS, end_process
from scheduler.errors import AgentNotFound
from scheduler.fleet.launch import first_contact
from scheduler.fleet.report import plural
from scheduler.fleet.verdict import principal
from scheduler.scheduler import Scheduler, open_scheduler
from scheduler.telemetry.address import Address
from scheduler.telemetry.listener import listening
from scheduler.telemetry.options import TelemetryChoice, open_telemetry
from scheduler.worker.engines import open_queue
from scheduler.worker.health import HealthPage
from scheduler.worker.queue import Queue, QueueSettings
from scheduler.worker.seal import Seal
from scheduler.worker.settings import WorkerSettings
from scheduler.worker.worker import Phase, Why, Worker

RESTART = 75
"""Exit status of a worker that wants a new life, as its memory was over the limit: sysexits' EX_TEMPFAIL."""


@frozen(kw_only=True)
class Post:
    """What one worker process needs, checked. `endpoint` None: the emulator has to be started first."""

    queue: str
    queue_settings: QueueSettings
    agents: Mapping[str, Agent]
    choice: EndpointChoice
    endpoint: Endpoint | None
    embedded: EmbeddedSettings
    connections: int | None
    settings: WorkerSettings
    seal: Seal
    health: Address | None
    telemetry: TelemetryChoice
    supervised: bool = False  # it ends when its standard input does
    display: Quiet = field(factory=lambda: Quiet(sys.stderr), repr=False)


def named_agents(specs: Sequence[str], load: Callable[[str], Agent], model: str | None) -> dict[str, Agent]:
    """Load agents given as `[NAME=]MODULE:NAME`; without a name it is the agent's own.

    Raises:
        AgentNotFound: one cannot be loaded, or two have the same name.
    """
    agents: dict[str, Agent] = {}
    for spec in specs:
        name, equals, place = spec.partition("=")
        agent = load(place if equals else spec)
        name = name if equals else agent.name
        if name in agents:
            raise AgentNotFound(spec, f"two agents are called {name!r}; give one another name: NAME={spec}")
        agents[name] = agent if model is None else evolve(agent, model=model)
    return agents


def serve(post: Post, *, debug: bool) -> int:
    """Work until told to stop; return the exit status."""
    with logging_to(post.display, verbose=debug) as notices:
        notices.muted = False
        try:
            return trio.run(_serve, post)
        except BaseExceptionGroup as group:
            raise principal(group) from None


async def _serve(post: Post) -> int:
    sources: dict[str, Scheduler] = {}
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with AsyncExitStack() as stack:
            queue = await stack.enter_async_context(open_queue(post.queue, post.queue_settings))
            endpoint = post.endpoint
            if endpoint is None:
                url = await stack.enter_async_context(embedded_emulator(post.embedded))
                endpoint = post.choice.build(url)
            await stack.enter_async_context(
                open_telemetry(post.telemetry, lambda: sources, say=post.display.say)
            )
            scheduler = await stack.enter_async_context(
                open_scheduler(endpoint, pool_settings=_pool(post, endpoint))
            )
            sources[""] = scheduler
            await first_contact(scheduler, fall_back=bool(endpoint.http_url))
            worker = Worker(queue, scheduler, post.agents, post.settings, post.seal)
            if post.health is not None:
                page = HealthPage(worker)
                page.listener = await stack.enter_async_context(listening(post.health, [page.page]))
                post.display.say(f"health on http://{page.listener.address}/healthz")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_heed_signals, signals, worker, post)
                if post.supervised:
                    nursery.start_soon(_heed_parent, worker)
                _greet(post, queue, endpoint)
                await worker.run()
                nursery.cancel_scope.cancel()
    _part(post, worker)
    return RESTART if worker.why is Why.MEMORY else 0


def _pool(post: Post, endpoint: Endpoint) -> PoolSettings:
    """Without --connections: few where a connection has lanes, else one for each job, so that it stays hot."""
    settings = PoolSettings(max_waiters=max(10_000, post.settings.concurrency))
    default = settings.max_connections if endpoint.lanes.in_flight > 1 else post.settings.concurrency
    return settings.with_(max_connections=default if post.connections is None else post.connections)


async def _heed_signals(signals: AsyncIterator[int], worker: Worker, post: Post) -> None:
    """The first signal stops the worker, the second ends the grace, the third ends the process."""
    count = 0
    async for number in signals:
        count += 1
        if count == 1 and worker.phase < Phase.STOPPING:
            running = plural(worker.running, "job")
            post.display.say(
                f"stopping: {running} may finish the turn within {post.settings.grace:g} s; again hands back now"
            )
            worker.stop()
        elif count <= 2:
            worker.hurry()
        else:
            end_process(number)


async def _heed_parent(worker: Worker) -> None:
    """Stop when the supervisor is gone, however it ended: the kernel closes its end of the pipe."""
    async with trio.lowlevel.FdStream(0) as stdin:
        async for _ in stdin:
            pass
    worker.stop()


def _greet(post: Post, queue: Queue, endpoint: Endpoint) -> None:
    agents = ", ".join(post.agents)
    post.display.say(f"working on {queue.name} for {agents} ({endpoint.name}); Ctrl-C stops")


def _part(post: Post, worker: Worker) -> None:
    ended = ", ".join(f"{count} {how}" for how, count in sorted(worker.ended.items())) or "no jobs"
    post.display.say(f"stopped, {worker.why.value if worker.why else 'done'}: {ended}")

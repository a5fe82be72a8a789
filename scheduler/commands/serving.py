"""Check everything that `warmline serve` was given, serve until told to stop, and say what was cut off."""

from __future__ import annotations

import errno
import gc
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import click
import trio
from attrs import field, frozen

from pool.errors import SettingsError
from pool.settings import MIB, Endpoint, PoolSettings, without_query
from scheduler.commands.certificates import tls_context
from scheduler.commands.display import Quiet
from scheduler.commands.embedded import EmbeddedSettings, embedded_emulator
from scheduler.commands.endpoints import EndpointChoice
from scheduler.commands.notices import logging_to
from scheduler.commands.operating import Operating
from scheduler.commands.output import write
from scheduler.commands.stopping import SIGNALS, end_process
from scheduler.fleet.report import plural
from scheduler.gateway.admin import LINGER
from scheduler.gateway.config import Tables
from scheduler.gateway.figures import figures_of
from scheduler.gateway.gateway import Gateway
from scheduler.gateway.keys import KeyRing, Policy
from scheduler.gateway.listening import address_of, check_exposure, inherited, listeners_of, open_sockets
from scheduler.gateway.loopback import is_loopback
from scheduler.gateway.server import RunningGateway, serve_gateway
from scheduler.gateway.settings import GatewaySettings
from scheduler.gateway.spool import Spool, open_spool
from scheduler.gateway.upstreams import Upstreams
from scheduler.settings import SchedulerSettings
from scheduler.telemetry.options import TelemetryChoice, open_telemetry
from scheduler.telemetry.telemetry import check

COLLECT_AFTER = 20_000  # objects that were made and not freed; Python's own: 700
YOUNG = (
    4  # such collections, after which those that survived them are looked at once more: some 10 ms of objects
)
OLD = 600  # those again, after which everything is
SINGLE_LANES = 64  # connections where each carries one turn at a time


@frozen(kw_only=True)
class Spooling:
    """Where what is remembered is kept on disk as well; in bytes, and in seconds without use."""

    folder: Path
    max_bytes: int
    max_age: float | None


@frozen(kw_only=True)
class Plan:
    """Everything that was asked for, checked. `endpoint` is None until the emulator has been started."""

    listen: tuple[str, int]
    choice: EndpointChoice
    endpoint: Endpoint | None
    settings: GatewaySettings
    pool: PoolSettings
    scheduler: SchedulerSettings
    ring: KeyRing
    connections: int | None
    spool: Spooling | None
    tls: ssl.SSLContext | None
    telemetry: TelemetryChoice
    display: Quiet = field(repr=False)


def execute(
    choice: EndpointChoice,
    tables: Tables,
    telemetry: TelemetryChoice,
    operator: Operating,
    *,
    listen: str,
    client_keys: Policy,
    connections: int | None,
    memory: int,
    spool: Path | None,
    spool_size: int,
    spool_age: float | None,
    grace: float,
    tls_cert: Path | None,
    tls_key: Path | None,
    socket_max_age: float | None,
    debug: bool,
) -> int:
    """Return the exit status."""
    ring = KeyRing(client_keys, tables.keys)
    host, port = address_of(listen)
    check_exposure(host, client_keys)
    operator.check()
    if telemetry.wanted:
        check(telemetry)
    if spool is None and spool_age is not None:
        raise SettingsError("spool_age", spool_age, "needs a spool: --spool DIR")
    plan = Plan(
        listen=(host, port),
        choice=choice,
        endpoint=None if choice.embedded else choice.build(keyless=client_keys == "forward"),
        settings=GatewaySettings(
            memory_bytes=memory * MIB, grace=grace, socket_max_age=socket_max_age, **tables.gateway
        ),
        pool=PoolSettings(**tables.pool),
        scheduler=SchedulerSettings(
            **{"tenants": ring.tenants, "budgets": tables.budgets, **tables.scheduler}
        ),
        ring=ring,
        connections=connections if connections is not None else tables.pool.get("max_connections"),
        spool=None
        if spool is None
        else Spooling(folder=spool, max_bytes=spool_size * MIB, max_age=spool_age),
        tls=tls_context(tls_cert, tls_key),
        telemetry=telemetry,
        display=Quiet(sys.stderr),
    )
    with logging_to(plan.display, verbose=debug) as notices:
        notices.muted = False
        trio.run(_serve, plan, operator)
    return 0


def tune_collector() -> None:
    """Let Python look for garbage in cycles less often: events come by the thousand, and none of them is one.

    With the usual threshold that takes a tenth of the time of a gateway that carries many streams. But the event loop
    stands still while it looks: so it does not save it up either.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, YOUNG, OLD)


async def _serve(plan: Plan, operator: Operating) -> None:
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with AsyncExitStack() as stack:
            endpoint = plan.endpoint
            if endpoint is None:
                url = await stack.enter_async_context(embedded_emulator(EmbeddedSettings()))
                endpoint = plan.choice.build(url)
            spool: Spool | None = None
            if plan.spool is not None:  # closed after the last turn has ended
                spool = await stack.enter_async_context(
                    open_spool(
                        plan.spool.folder,
                        without_query(endpoint.url),
                        max_bytes=plan.spool.max_bytes,
                        max_age=plan.spool.max_age,
                    )
                )
            gateway = gateway_of(plan, endpoint, spool)
            sockets = inherited(os.environ, os.getpid())
            if sockets:  # who keeps them starts a successor
                gateway.linger = LINGER
            sockets = sockets or await operator.take_over(plan.listen[1]) or await _listening(plan)
            for one in sockets:  # those that were passed to us may be others than --listen says
                check_exposure(one.getsockname()[0], plan.ring.policy)
            await stack.enter_async_context(
                open_telemetry(
                    plan.telemetry,
                    lambda: gateway.upstreams.sources,
                    say=plan.display.say,
                    beside=lambda: figures_of(gateway),
                )
            )
            running = await stack.enter_async_context(
                serve_gateway(gateway, listeners_of(sockets), tls=plan.tls)
            )
            await stack.enter_async_context(operator.serve(running))
            tune_collector()
            greet(endpoint, running, plan.ring.policy)
            await until_stopped(signals, running, plan)


async def _listening(plan: Plan) -> list[socket.socket]:
    host, port = plan.listen
    try:
        return await open_sockets(host, port)
    except OSError as error:
        where = f"{host}:{port}"
        raise click.ClickException(
            f"cannot listen on {where}: {error.strerror or error}"
            + ("; --takeover takes the place of a gateway there" if error.errno == errno.EADDRINUSE else "")
        ) from None


def gateway_of(plan: Plan, endpoint: Endpoint, spool: Spool | None = None) -> Gateway:
    """Return the gateway to this endpoint."""
    most = plan.connections
    if most is None:
        most = SINGLE_LANES if endpoint.lanes.count == 1 else plan.pool.max_connections
    upstreams = Upstreams(
        endpoint,
        plan.settings,
        pool_settings=plan.pool.with_(max_connections=most),
        scheduler_settings=plan.scheduler,
    )
    return Gateway(upstreams, plan.settings, plan.ring, spool)


def greet(endpoint: Endpoint, running: RunningGateway, policy: Policy) -> None:
    """Say where clients find the gateway, and how."""
    write(f"warmline gateway to {endpoint.name} ready at {running.url} ({running.socket_url})")
    key = {
        "forward": "each client's own key travels upstream",
        "virtual": "clients need a key of the gateway's (--new-key NAME makes one)",
        "open": "clients need no key, but SDKs ask for one: OPENAI_API_KEY=any",
    }[policy]
    write(f"point clients at it: OPENAI_BASE_URL={running.url}   ({key})")
    host = running.listeners[0].socket.getsockname()[0]
    if not running.tls and not is_loopback(host):
        remedy = "--tls-cert and --tls-key, or a proxy with TLS in front, keep them secret"
        write(f"note: whoever is on the way to {host} can read keys and contents: {remedy}", err=True)


async def until_stopped(signals: AsyncIterator[int], running: RunningGateway, plan: Plan) -> None:
    """Serve until a signal; then let turns end within the grace. The second signal cuts them off."""
    number = await anext(aiter(signals))
    gateway, grace, say = running.gateway, plan.settings.grace, plan.display.say
    turns = plural(len(gateway.core.running), "turn")
    say(f"stopping: {turns} may end within {grace:g} s; Ctrl-C again cuts them off")
    async with trio.open_nursery() as nursery:

        async def stop() -> None:
            await running.stop(grace)
            nursery.cancel_scope.cancel()

        nursery.start_soon(stop)
        async for number in signals:
            if not running.cutting:
                running.cut_off()
            else:
                end_process(number)
    say(f"stopped; {plural(running.cut, 'turn')} cut off" if running.cut else "stopped; every turn has ended")

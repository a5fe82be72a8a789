"""Check what `warmline work` was given, and begin: one process, or several under one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from attrs import evolve

from pool.private_files import hush
from scheduler.commands.display import Quiet
from scheduler.commands.embedded import EmbeddedSettings
from scheduler.commands.endpoints import EndpointChoice
from scheduler.commands.loading import load_agent
from scheduler.commands.stopping import SIGNALS
from scheduler.telemetry.address import Address
from scheduler.telemetry.options import TelemetryChoice
from scheduler.telemetry.telemetry import check
from scheduler.worker.engines import open_queue
from scheduler.worker.queue import QueueSettings
from scheduler.worker.seal import Seal
from scheduler.worker.service import Post, named_agents, serve
from scheduler.worker.settings import WorkerSettings
from scheduler.worker.supervisor import Supervisor, child_number


def execute(
    arguments: Sequence[str],
    *,
    choice: EndpointChoice,
    emulator: dict[str, Any],
    debug: bool,
    queue: str,
    agent_specs: Sequence[str],
    model: str | None,
    concurrency: int,
    connections: int | None,
    processes: int,
    until_empty: bool,
    grace: float,
    lease: float,
    head_start: float,
    retention: float,
    result_limit: int,
    checkpoint_limit: int,
    memory_limit: int | None,
    checkpoint_key_file: str | None,
    accept_unsealed: bool,
    health: Address | None,
    telemetry: TelemetryChoice,
) -> int:
    """Return the exit status. What can be seen to be wrong is seen before anything is begun."""
    embedded = EmbeddedSettings(**emulator)
    if emulator:
        embedded.checked()
    number = child_number()
    if number is not None:
        hush()  # the process above opens the same files, and has warned
    post = Post(
        queue=queue,
        queue_settings=QueueSettings(lease=lease, head_start=head_start, retention=retention),
        agents=named_agents(agent_specs, load_agent, model),
        choice=choice,
        endpoint=None if choice.embedded else choice.build(),
        embedded=embedded,
        connections=connections,
        settings=WorkerSettings(
            concurrency=concurrency,
            grace=grace,
            result_limit=result_limit,
            checkpoint_limit=checkpoint_limit,
            memory_limit=memory_limit,
            until_empty=until_empty,
        ),
        seal=Seal.found(checkpoint_key_file, accept_unsealed=accept_unsealed),
        health=health,
        telemetry=telemetry,
        supervised=number is not None,
    )
    if number is not None:
        post = of_child(post, number)
    elif processes > 1:
        for child in range(processes):
            check(of_child(post, child).telemetry)
        return _supervise(post, arguments, processes)
    check(post.telemetry)
    return serve(post, debug=debug)


def of_child(post: Post, number: int) -> Post:
    """Give each child ports and files of its own: the next port, and its number in the file's name."""
    telemetry = evolve(
        post.telemetry,
        stats=_numbered(post.telemetry.stats, number),
        trace=_numbered(post.telemetry.trace, number),
        metrics=_next_port(post.telemetry.metrics, number),
        dashboard=_next_port(post.telemetry.dashboard, number),
    )
    display = Quiet(sys.stderr, prefix=f"worker {number + 1}: ")
    return evolve(post, telemetry=telemetry, health=_next_port(post.health, number), display=display)


def _numbered(path: str | None, number: int) -> str | None:
    if path is None:
        return None
    file = Path(path)
    return str(file.with_name(f"{file.stem}-{number + 1}{file.suffix}"))


def _next_port(address: Address | None, number: int) -> Address | None:
    return address if address is None or not address.port else Address(address.host, address.port + number)


def _supervise(post: Post, arguments: Sequence[str], processes: int) -> int:
    command = [sys.executable, "-m", "scheduler", *arguments]

    async def run() -> int:
        # A queue that cannot be opened is one error here, not one a child.
        async with open_queue(post.queue, post.queue_settings):
            pass
        supervisor = Supervisor(command, processes, post.settings.grace, post.display.say)
        with trio.open_signal_receiver(*SIGNALS) as signals:
            post.display.say(f"{processes} workers under process {os.getpid()}; Ctrl-C stops them")
            return await supervisor.run(signals)

    return trio.run(run)

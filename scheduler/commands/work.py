"""`warmline work`: workers behind a job queue."""

from __future__ import annotations

import sys
from typing import Any

import click

from scheduler.commands.endpoints import emulator_options, endpoint_options
from scheduler.commands.queues import Size, accept_unsealed_option, debug_option, note_debug, queue_option
from scheduler.commands.seconds import Seconds
from scheduler.telemetry.options import AddressType, telemetry_options

HELP = """Work on the jobs of a queue until told to stop.

Every turn and every tool result is kept in the queue as soon as it is there: when a worker dies, another goes on at
the last completed step. Delivery is at least once, a result is recorded exactly once.

Ctrl-C (or SIGTERM) takes no more jobs, lets the running ones finish their turn within --grace, and hands them back;
a second one hands them back at once.

\b
Examples:
  # try it: one queue in a file, a worker on an emulator, until all is done
  warmline enqueue examples/tasks.jsonl --queue sqlite:///jobs.db
  warmline work --queue sqlite:///jobs.db --agent examples/files.py:agent \\
      --endpoint emulator --until-empty
\b
  # four processes against OpenAI, health and metrics for the platform
  warmline work --queue sqlite:////var/lib/warmline/jobs.db --processes 4 \\
      --agent my_agents:reviewer --agent sum=my_agents:summary \\
      --health 9100

\b
Exit status: 0 told to stop, or nothing left; 1 it could not go on; 2 wrong
usage; 75 its memory was over --memory-limit (start it again). Options can
also be set as, for instance, WARMLINE_WORK_CONCURRENCY=16.
"""


@click.command(help=HELP, short_help="Work on the jobs of a queue.")
@queue_option
@click.option(
    "--agent",
    "agent_specs",
    required=True,
    multiple=True,
    metavar="[NAME=]MODULE:NAME",
    help="Who does the jobs; again for more. The first does those that name nobody.  [default NAME: its own]",
)
@endpoint_options
@click.option("--model", metavar="NAME", help="Instead of the agents' own.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Jobs at a time, in each process.",
)
@click.option(
    "--connections",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most, in each process.  [default: 8; one a job where a connection has a single lane]",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Workers under this one; a dead one is started again.",
)
@click.option("--until-empty", is_flag=True, help="Stop when no job is left.")
@click.option(
    "--grace",
    type=Seconds(min=0),
    default=20.0,
    show_default=True,
    metavar="S",
    help="Seconds that running turns get to finish when told to stop.",
)
@click.option(
    "--lease",
    type=click.FloatRange(min=0.5, max=3600),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds without a sign of life after which a worker's jobs go to others.",
)
@click.option(
    "--head-start",
    type=Seconds(min=0),
    default=3.0,
    show_default=True,
    metavar="S",
    help="Seconds that a follow-up waits for the worker with its hot lane.",
)
@click.option(
    "--retention",
    type=click.FloatRange(min=1),
    default=86_400.0,
    show_default=True,
    metavar="S",
    help="Seconds that results, and conversations, are kept.",
)
@click.option(
    "--result-limit", type=Size(), default="4MiB", show_default=True, metavar="SIZE", help="A result."
)
@click.option(
    "--checkpoint-limit",
    type=Size(),
    default="64MiB",
    show_default=True,
    metavar="SIZE",
    help="What is kept of a conversation.",
)
@click.option("--memory-limit", type=Size(), metavar="SIZE", help="A process above it is started afresh.")
@click.option(
    "--checkpoint-key-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Encrypt checkpoints: 32 bytes in base64, one key a line.  [default: WARMLINE_CHECKPOINT_KEY]",
)
@accept_unsealed_option
@click.option(
    "--health",
    type=AddressType(),
    metavar="[HOST:]PORT",
    help="Serve /healthz, and /queue and /metrics of the queue.",
)
@emulator_options
@telemetry_options
@debug_option
@click.pass_context
def work(context: click.Context, /, **options: Any) -> None:
    """See HELP."""
    note_debug(context, options.pop("debug"))
    from scheduler.worker.prepare import execute  # trio, msgspec and all: not for --help

    context.exit(execute(sys.argv[1:], debug=context.find_root().obj["debug"], **options))

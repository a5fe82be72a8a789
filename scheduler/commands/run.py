"""`warmline run`: a fleet from the command line."""

from __future__ import annotations

from typing import Any

import click

from scheduler.commands.endpoints import emulator_options, endpoint_options
from scheduler.commands.seconds import Seconds
from scheduler.telemetry.options import telemetry_options

HELP = """Run an agent on every task of a file.

TASKS is JSON Lines, `-` for standard input. Each line is one task: a text, or an object with "input" (a text or
a list of input items) and, if you like, "id", "metadata", "tenant", "priority" and "deadline".

Each result is appended to the results file as soon as its run ends. Ctrl-C starts no more tasks and lets the
running ones finish within --grace; a second Ctrl-C cancels them. Go on later with --resume.

\b
Examples:
  # try it without a key or a server
  warmline run examples/tasks.jsonl --agent examples/files.py:agent \\
      --endpoint emulator
\b
  # the real thing: OPENAI_API_KEY is set
  warmline run tasks.jsonl --agent my_agents:reviewer --out reviews.jsonl
\b
  # go on where it was interrupted, and run again what failed
  warmline run tasks.jsonl --agent my_agents:reviewer --out reviews.jsonl \\
      --resume
\b
  # any other server of the protocol; the summary as JSON
  warmline run tasks.jsonl --agent agent.py:agent --json \\
      --url http://127.0.0.1:8080/v1

\b
Exit status: 0 all runs completed, 1 some did not, 2 wrong usage or input
(nothing was run), 130 interrupted. Options can also be set as, for instance,
WARMLINE_RUN_CONNECTIONS=16 in the environment.
"""


@click.command(help=HELP, short_help="Run an agent on every task of a file.")
@click.argument("tasks", metavar="TASKS.jsonl")
@click.option("--agent", "agent_spec", required=True, metavar="MODULE:NAME", help="Or path/to/file.py:NAME.")
@endpoint_options
@click.option("--model", metavar="NAME", help="Instead of the agent's own.")
@click.option(
    "--store/--no-store", default=None, help="Let the server keep responses.  [default: as the agent says]"
)
@click.option(
    "--connections",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most.  [default: 8; one for each run where a connection has a single lane]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="Runs at a time.",
)
@click.option(
    "--transport",
    type=click.Choice(["auto", "websocket", "http"]),
    default="auto",
    show_default=True,
    help="auto: sockets, and HTTP for what they cannot carry, while they are down, and for the shortest runs.",
)
@click.option(
    "--tenant", metavar="NAME", help="On whose behalf: for tasks that name none.  [default: default]"
)
@click.option(
    "--out", metavar="FILE", help="Results, JSON Lines.  [default: TASKS.results.jsonl in the current folder]"
)
@click.option("--resume", is_flag=True, help="Append to FILE and skip the tasks that are completed in it.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it is there.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
@click.option(
    "--grace",
    type=Seconds(min=0),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds that running tasks get to finish after Ctrl-C.",
)
@emulator_options
@telemetry_options
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def run(context: click.Context, /, **options: Any) -> None:
    """See HELP."""
    state = context.find_root().ensure_object(dict)
    state["debug"] = options["debug"] = options["debug"] or state.get("debug", False)
    if options["resume"] and options["overwrite"]:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    from scheduler.commands.prepare import execute  # trio, msgspec and all: not for --help

    context.exit(execute(**options))

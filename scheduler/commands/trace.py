"""`warmline trace`: what a recorded trace tells."""

from __future__ import annotations

from typing import Any

import click

HELP = """Show what `--trace FILE` of run, work or serve has recorded.

Without options: what is in it, and a line for each conversation.

\b
Examples:
  warmline run tasks.jsonl --agent agents.py:agent --trace fleet.trace
  warmline trace fleet.trace --slowest 10
  warmline trace fleet.trace --conversation task-17
  warmline trace fleet.trace --odd
  warmline trace fleet.trace --har fleet.har
  warmline emulate --trace fleet.trace

The .har file opens in the network panel of a browser's developer tools. The
last line serves the recorded answers again, with their own timing.

\b
Exit status: 0 shown, 1 the trace cannot be read, 2 wrong usage or no such
conversation.
"""
SORTS = ("start", "name", "turns", "replays", "retries", "seconds", "slowest")


@click.command(help=HELP, short_help="Show a trace: who said what where, and what was odd.")
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--conversation", "-c", metavar="NAME", help="Its timeline, across all its sockets.")
@click.option("--connection", metavar="NAME", help="The timeline of one socket, e.g. c3.")
@click.option("--odd", is_flag=True, help="The slow and the odd, a sentence each.")
@click.option("--sort", type=click.Choice(SORTS), default=None, help="Of the list.  [default: start]")
@click.option(
    "--slowest",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the N conversations with the slowest turns.",
)
@click.option("--har", metavar="OUT.har", help="Write a HAR 1.2 file for a browser's developer tools.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def trace(context: click.Context, /, **options: Any) -> None:
    """See HELP."""
    asked = [f"--{name}" for name in ("conversation", "connection", "odd", "har") if options[name]]
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)} exclude each other: ask for one at a time.")
    if asked and (options["sort"] or options["slowest"]):
        raise click.UsageError(f"--sort and --slowest are for the list, not for {asked[0]}.")
    if options["sort"] and options["slowest"]:
        raise click.UsageError("--sort and --slowest exclude each other: --slowest sorts by itself.")
    from scheduler.trace.view.show import show  # msgspec and all: not for --help

    context.exit(show(**options))

"""`warmline enqueue`: the tasks of a file become jobs of a queue."""

from __future__ import annotations

import click

from scheduler.commands.queues import debug_option, note_debug, queue_option

HELP = """Put the tasks of a file into a queue.

TASKS is JSON Lines as for `warmline run`, `-` for standard input. Beside what a task has ("id", "input",
"metadata", "tenant", "priority", "deadline") a job may have "agent" (who does it), "attempts" (3), "not_before" (a
time such as 2030-01-31T08:00:00Z) and "conversation": jobs of one conversation are done in order, and each goes on
where the last left off.

The same file again changes nothing: a job that is there with the same content stays as it is. Other content under
the same id is an error.

\b
Examples:
  warmline enqueue tasks.jsonl --queue sqlite:///jobs.db
  echo '{"id": "c-1", "input": "Hello", "conversation": "c"}' |
      warmline enqueue - --queue redis://127.0.0.1 --agent support

\b
Exit status: 0 all are in the queue, 1 the queue cannot take them now (do it
again), 2 wrong usage or input.
"""


@click.command(help=HELP, short_help="Put the tasks of a file into a queue.")
@click.argument("tasks", metavar="TASKS.jsonl")
@queue_option
@click.option("--agent", metavar="NAME", help="Of jobs that name none.  [default: the worker's first]")
@click.option("--tenant", metavar="NAME", help="Of jobs that name none.")
@click.option("--priority", type=float, metavar="N", help="Of jobs that have none; the higher goes first.")
@click.option("--attempts", type=click.IntRange(min=1), metavar="N", help="Likewise.  [default: 3]")
@click.option("--json", "as_json", is_flag=True, help="The ids, each with what became of it, as JSON Lines.")
@debug_option
@click.pass_context
def enqueue(
    context: click.Context,
    /,
    tasks: str,
    queue: str,
    agent: str | None,
    tenant: str | None,
    priority: float | None,
    attempts: int | None,
    as_json: bool,
    debug: bool,
) -> None:
    """See HELP."""
    note_debug(context, debug)
    from scheduler.worker.asking import enqueue_file  # trio, msgspec and all: not for --help

    defaults = {"agent": agent, "tenant": tenant, "priority": priority, "attempts": attempts}
    enqueue_file(tasks, queue, defaults, as_json=as_json)

"""`warmline result`: what came of a job."""

from __future__ import annotations

import click

from scheduler.commands.queues import accept_unsealed_option, debug_option, note_debug, queue_option
from scheduler.commands.seconds import Seconds

HELP = """Show a job's result: the agent's answer, on stdout.

\b
Examples:
  warmline result task-7 --queue sqlite:///jobs.db
  warmline result task-7 --queue sqlite:///jobs.db --wait --json | jq .output
  warmline result task-7 --queue sqlite:///jobs.db --follow

\b
Exit status: 0 there is a result, 1 the job failed (the cause is on stderr),
2 there is no such job, 3 there is no result yet.
"""


@click.command(help=HELP, short_help="Show a job's result; wait for it, or follow it.")
@click.argument("job_id", metavar="ID")
@queue_option
@click.option("--wait", is_flag=True, help="Wait until the job has ended.")
@click.option("--follow", is_flag=True, help="Show each turn and tool result as it is kept, then the result.")
@click.option("--timeout", type=Seconds(min=0), metavar="S", help="Wait or follow so many seconds at most.")
@click.option("--json", "as_json", is_flag=True, help="The whole result; with --follow each step before it.")
@click.option(
    "--checkpoint-key-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="For --follow of encrypted checkpoints.  [default: WARMLINE_CHECKPOINT_KEY]",
)
@accept_unsealed_option
@debug_option
@click.pass_context
def result(
    context: click.Context,
    /,
    job_id: str,
    queue: str,
    wait: bool,
    follow: bool,
    timeout: float | None,
    as_json: bool,
    checkpoint_key_file: str | None,
    accept_unsealed: bool,
    debug: bool,
) -> None:
    """See HELP."""
    note_debug(context, debug)
    from scheduler.worker.asking import show_result
    from scheduler.worker.seal import Seal

    context.exit(
        show_result(
            job_id,
            queue,
            wait=wait or follow,
            follow=follow,
            timeout=timeout,
            as_json=as_json,
            seal=Seal.found(checkpoint_key_file, accept_unsealed=accept_unsealed),
        )
    )

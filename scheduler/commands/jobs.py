"""`warmline jobs`: what is in a queue, and what a person can do about it."""

from __future__ import annotations

from typing import Any

import click

from scheduler.commands.queues import (
    accept_unsealed_option,
    debug_option,
    json_option,
    note_debug,
    queue_option,
)

HELP = """List the jobs of a queue, with how many are where.

\b
Examples:
  warmline jobs --queue sqlite:///jobs.db
  warmline jobs --queue sqlite:///jobs.db --state dead
  warmline jobs show task-7 --queue sqlite:///jobs.db
  warmline jobs retry task-7 task-8 --queue sqlite:///jobs.db
  warmline jobs retry --all --queue sqlite:///jobs.db
  warmline jobs drop task-7 --queue sqlite:///jobs.db
"""
RETRY = """Queue dead letters again, each behind its last completed step.

A job that stopped because a tool was running which must not run twice (CallInDoubt) runs it again, unless --answer
says what it gave: find out first whether it had done its work.
"""


@click.group(
    help=HELP, short_help="List the jobs of a queue; retry or drop them.", invoke_without_command=True
)
@click.option("--queue", envvar="WARMLINE_QUEUE", metavar="URL", help="sqlite:///jobs.db or redis://host.")
@click.option("--state", type=click.Choice(["queued", "running", "done", "dead"]), help="Only these.")
@click.option("--agent", metavar="NAME", help="Only of this agent.")
@click.option("--tenant", metavar="NAME", help="Only of this tenant.")
@click.option("--conversation", metavar="ID", help="Only of this conversation.")
@click.option("--prefix", default="", metavar="TEXT", help="Only those whose id begins so.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=50, show_default=True, metavar="N", help="At most."
)
@click.option("--after", metavar="ID", help="Only those enqueued after this one.")
@json_option
@debug_option
@click.pass_context
def jobs(
    context: click.Context,
    /,
    queue: str | None,
    state: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
    debug: bool,
    **wanted: Any,
) -> None:
    """See HELP."""
    note_debug(context, debug)
    context.find_root().obj["queue"] = queue
    if context.invoked_subcommand is not None:
        return
    if queue is None:
        raise click.UsageError("Missing option '--queue' (or WARMLINE_QUEUE).")
    from scheduler.worker.asking import list_jobs  # trio, msgspec and all: not for --help

    list_jobs(queue, state=state, limit=limit, after=after, as_json=as_json, **wanted)


@jobs.command(help="Show all that is known of a job.")
@click.argument("job_id", metavar="ID")
@queue_option
@json_option
@debug_option
@click.pass_context
def show(context: click.Context, /, job_id: str, queue: str, as_json: bool, debug: bool) -> None:
    """See its help."""
    note_debug(context, debug)
    from scheduler.worker.asking import show_job

    show_job(job_id, queue, as_json=as_json)


@jobs.command(help=RETRY, short_help="Queue dead letters again.")
@click.argument("job_ids", metavar="ID...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All dead letters, but for those with calls in doubt.")
@click.option(
    "--answer", metavar="CALL_ID=TEXT", multiple=True, help="What the tool in doubt gave; for a single job."
)
@click.option(
    "--checkpoint-key-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="The workers'; for --answer.  [default: WARMLINE_CHECKPOINT_KEY]",
)
@accept_unsealed_option
@queue_option
@debug_option
@click.pass_context
def retry(
    context: click.Context,
    /,
    job_ids: tuple[str, ...],
    every: bool,
    answer: tuple[str, ...],
    checkpoint_key_file: str | None,
    accept_unsealed: bool,
    queue: str,
    debug: bool,
) -> None:
    """See RETRY."""
    note_debug(context, debug)
    if every == bool(job_ids):
        raise click.UsageError("Name the jobs, or say --all.")
    if answer and len(job_ids) != 1:
        raise click.UsageError("--answer is for a single job; name it.")
    for text in answer:
        if not text.partition("=")[0] or "=" not in text:
            raise click.BadParameter(f"{text!r}: write CALL_ID=TEXT.", param_hint="'--answer'")
    answers = dict(text.partition("=")[::2] for text in answer)
    from scheduler.worker.asking import retry_jobs
    from scheduler.worker.seal import Seal

    seal = Seal.found(checkpoint_key_file, accept_unsealed=accept_unsealed)
    retry_jobs(queue, job_ids, answers, seal=seal)


@jobs.command(
    help="Forget jobs, with their steps and results, whatever their state.", short_help="Forget jobs."
)
@click.argument("job_ids", metavar="ID...", nargs=-1)
@click.option("--all-dead", is_flag=True, help="All dead letters.")
@queue_option
@debug_option
@click.pass_context
def drop(
    context: click.Context, /, job_ids: tuple[str, ...], all_dead: bool, queue: str, debug: bool
) -> None:
    """See its help."""
    note_debug(context, debug)
    if all_dead == bool(job_ids):
        raise click.UsageError("Name the jobs, or say --all-dead.")
    from scheduler.worker.asking import drop_jobs

    drop_jobs(queue, job_ids)

"""The `warmline` command: its group, and the one place where errors become words for a person.

Commands are imported when they are called for, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from scheduler.commands.file_notices import file_notices

COMMANDS = {
    "run": "Run an agent on every task of a file.",
    "serve": "Serve the Responses API to any client over the pool.",
    "ctl": "Look into a running gateway, and steer it.",
    "work": "Work on the jobs of a queue.",
    "enqueue": "Put the tasks of a file into a queue.",
    "jobs": "List the jobs of a queue; retry or drop them.",
    "result": "Show a job's result; wait for it, or follow it.",
    "emulate": "Serve a Responses API for trying out and testing.",
    "top": "Show in the terminal what a dashboard shows.",
    "plan": "Say how many connections, lanes and processes a load needs.",
    "trace": "Show a trace: who said what where, and what was odd.",
}

HELP = """Pool warm connections to a Responses API, and schedule fleets of agent runs over them.

\b
Examples:
  # a fleet of agents on an emulator: no key, no server
  warmline run examples/tasks.jsonl --agent examples/files.py:agent \\
      --endpoint emulator
\b
  # the same against OpenAI
  export OPENAI_API_KEY=...
  warmline run examples/tasks.jsonl --agent examples/files.py:agent
\b
  # an emulator for any client of the API
  warmline emulate --listen 127.0.0.1:8080
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when used. `name` is in the module `scheduler.commands.name`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"scheduler.commands.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"warmline {version('warmline')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    help=HELP,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "WARMLINE",
        "max_content_width": 80,
    },
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show it and exit."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """See HELP."""
    if debug:
        context.ensure_object(dict)["debug"] = True


def main(args: list[str] | None = None) -> None:
    """Run the command and exit. What goes wrong is one line on stderr."""
    sys.exit(invoke(args))


def invoke(args: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    state: dict[str, Any] = {}
    try:
        with file_notices():
            status = cli.main(args=args, prog_name="warmline", standalone_mode=False, obj=state)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        from scheduler.commands.output import write

        write(f"warmline: error: {_one_line(error)}", err=True)
        return error.exit_code
    except (Exception, BaseExceptionGroup, KeyboardInterrupt, SystemExit) as error:
        from scheduler.commands.failures import explain

        return explain(
            error, debug=bool(state.get("debug")) or os.environ.get("WARMLINE_DEBUG", "") not in ("", "0")
        )
    return status if isinstance(status, int) else 0


def _one_line(error: click.ClickException) -> str:
    said = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{said} (help: {context.command_path} --help)" if context is not None else said


if __name__ == "__main__":
    main()

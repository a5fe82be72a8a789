"""`warmline ctl`: look into a running gateway, and steer it."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import click

HELP = """Look into a running gateway, and steer it.

\b
  show WHAT        pools, connections, lanes, conversations, waiters,
                   clients, keys, stats or settings
  pause [NAME]     grant no lane any more; turns in flight go on
  drain [NAME]     pause, and come back when nothing is in flight
  resume [NAME]    grant lanes again
  rotate [NAME]    replace every socket upstream, without a gap
  kill [NAME]      close the sockets now; what is in flight fails
  kick KEY         end the requests and WebSockets of a key now
  reload           read the configuration file again
  stop             stop as on SIGTERM
  key NAME         make a virtual key; needs no gateway

NAME is an upstream, as `show pools` has it; without it all are meant. KEY is
the name of a virtual key, or of an upstream with a client's own key.

\b
Examples:
  warmline ctl show pools
  warmline ctl show stats --json
  warmline ctl pause key-1a2b3c4d
"""


@click.command(help=HELP, short_help="Look into a running gateway, and steer it.")
@click.argument("verb")
@click.argument("name", required=False)
@click.option(
    "--admin",
    metavar="PATH|HOST:PORT",
    help="The gateway's admin socket.  [default: the only one of this user's]",
)
@click.option("--token", metavar="TEXT", help="For an admin port; better set WARMLINE_CTL_TOKEN.")
@click.option("--json", "as_json", is_flag=True, help="Show JSON, one object.")
@click.pass_context
def ctl(
    context: click.Context, verb: str, name: str | None, admin: str | None, token: str | None, as_json: bool
) -> None:
    """See HELP."""
    verb = verb.lower()
    if verb == "key":
        from scheduler.gateway.mint import show_new_key

        if name is None:
            raise click.UsageError("`key` needs a name: warmline ctl key NAME")
        show_new_key(context, context.command.params[1], name)
    from pool.redaction import PROCESS
    from scheduler.gateway.admin import VERBS
    from scheduler.gateway.operator import NotRunning, ask, found_path, where_of
    from scheduler.gateway.tables import SHOWN

    if verb not in VERBS:
        raise click.UsageError(f"no such verb: {verb!r}; there is {', '.join((*VERBS, 'key'))}")
    if verb == "show" and name not in SHOWN:
        raise click.UsageError(f"show what? There is {', '.join(SHOWN)}")
    request = {"verb": verb, "name": name, "token": token}
    PROCESS.keep(token)
    try:
        answer = ask(where_of(admin if admin is not None else found_path()), request)
    except NotRunning as error:
        raise click.ClickException(str(error)) from None
    if "error" in answer:
        raise click.ClickException(answer["error"])
    show(answer, as_json=as_json)


def show(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print an answer."""
    from scheduler.commands.output import write

    if as_json:
        from pool.wire.codec import to_json

        if "rows" in answer:
            answer = {"rows": [dict(zip(answer["columns"], row, strict=True)) for row in answer["rows"]]}
        write(to_json(answer).decode(), data=True)
    elif "rows" in answer:
        _table(answer["columns"], answer["rows"])
    else:
        write(answer["said"])


def _table(columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table, as wide as the terminal; into a pipe nothing is cut or folded."""
    from scheduler.commands.columns import lines_of
    from scheduler.commands.output import write

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines_of(columns, rows, width):
        write(line)
    if not rows:
        write("(none)", err=True)

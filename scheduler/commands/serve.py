"""`warmline serve`: the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scheduler.commands.endpoints import EndpointChoice, endpoint_options
from scheduler.commands.seconds import Seconds
from scheduler.gateway.config import config_of, configured, settings_of
from scheduler.gateway.mint import show_new_key
from scheduler.telemetry.options import TelemetryChoice, telemetry_options

HELP = """Serve the Responses API over a pool of warm connections.

Point any client of the API at it by its base URL; nothing else changes. Turns go over sockets that are kept
warm; clients that send their whole history each time are recognised, and only what is new goes upstream.
Everything else of the API passes through. Each client's own key travels upstream; --client-keys says otherwise.

\b
Examples:
  # in front of OpenAI: clients keep their own keys
  warmline serve
  export OPENAI_BASE_URL=http://127.0.0.1:8787/v1
\b
  # the gateway holds the key (OPENAI_API_KEY); local clients need none
  warmline serve --client-keys open
\b
  # try it without a key: on an emulator
  warmline serve --endpoint emulator
\b
  # settings from a file, and what they come to
  warmline serve --config serve.toml --show-config

The first Ctrl-C (or SIGTERM) lets turns end within --grace, the second cuts them off. Exit status: 0 stopped,
1 could not go on, 2 wrong usage. Options can also be set as, for instance, WARMLINE_SERVE_LISTEN=127.0.0.1:9000.
"""


@click.command(help=HELP, short_help="Serve the Responses API to any client over the pool.")
@click.option(
    "--listen", default="127.0.0.1:8787", show_default=True, metavar="HOST:PORT", help="Port 0: any."
)
@endpoint_options
@click.option(
    "--client-keys",
    type=click.Choice(["forward", "virtual", "open"]),
    default="forward",
    show_default=True,
    help="Whose key goes upstream: forward, each client's own; virtual, the gateway's, for clients with a key that "
    "the gateway has issued; open, the gateway's, for everybody.",
)
@click.option(
    "--connections",
    type=click.IntRange(min=1),
    metavar="N",
    help="Sockets for each key, at most.  [default: 8; 64 where a connection has a single lane]",
)
@click.option(
    "--memory",
    default=512,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="MIB",
    help="For the transcripts of what was served lately.",
)
@click.option(
    "--spool",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the transcripts here as well: they outlast --memory and a restart.  [default: nothing on disk]",
)
@click.option(
    "--spool-size",
    default=4096,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="MIB",
    help="Of the spool, at most; what was not used for longest goes first.",
)
@click.option(
    "--spool-age",
    type=Seconds(min=1),
    metavar="S",
    help="What was not used for so long is removed from the spool.  [default: never]",
)
@click.option(
    "--grace",
    type=Seconds(min=0),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds that turns get to end when the gateway stops.",
)
@click.option(
    "--tls-cert", type=click.Path(dir_okay=False, path_type=Path), help="PEM file; with --tls-key serves TLS."
)
@click.option("--tls-key", type=click.Path(dir_okay=False, path_type=Path), help="PEM file.")
@click.option(
    "--socket-max-age",
    type=Seconds(min=1),
    metavar="S",
    help="Close clients' WebSockets after so long, as the service does after 3600 s.  [default: never]",
)
@click.option(
    "--admin",
    metavar="PATH",
    help="Where `warmline ctl` finds it: a path, HOST:PORT (with --admin-token), or none.  "
    "[default: a socket of this user's for each port]",
)
@click.option(
    "--admin-token", metavar="TEXT", help="For an admin port; better set WARMLINE_SERVE_ADMIN_TOKEN."
)
@click.option(
    "--takeover",
    is_flag=True,
    help="Take the port over from the gateway that runs at this admin socket; no client is refused.",
)
@telemetry_options
@click.option("--debug", is_flag=True, help="Log everything, and show tracebacks.")
@click.option(
    "--new-key",
    metavar="NAME",
    is_eager=True,
    expose_value=False,
    callback=show_new_key,
    help="Make a virtual key, show it once, and exit.",
)
@configured
@click.pass_context
def serve(
    context: click.Context, /, *, choice: EndpointChoice, telemetry: TelemetryChoice, **options: Any
) -> None:
    """See HELP."""
    state = context.find_root().ensure_object(dict)
    state["debug"] = options["debug"] = options["debug"] or state.get("debug", False)
    from scheduler.commands.operating import Operating  # trio, msgspec and all: not for --help
    from scheduler.commands.serving import execute

    operating = {name: options.pop(name) for name in ("admin", "admin_token", "takeover")}
    operator = Operating(
        **operating,
        config=config_of(context),
        parameters=context.command.params,
        settings=settings_of(context),
    )
    context.exit(execute(choice, config_of(context).tables, telemetry, operator, **options))

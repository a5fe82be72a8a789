"""`warmline emulate`: a Responses server to try things on."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

import click
import trio

from pool.emulator import EmulatorSettings, serve_emulator
from pool.emulator.playback import Schedule
from pool.errors import SettingsError
from pool.numbers import whole_number
from pool.settings import Lanes
from scheduler.commands.certificates import tls_context
from scheduler.commands.output import write

_LANES = {"single": Lanes.single, "multi": Lanes.multi}


@click.command()
@click.option(
    "--listen", default="127.0.0.1:8123", show_default=True, metavar="HOST:PORT", help="Port 0: any."
)
@click.option(
    "--max-age", type=float, default=3600.0, show_default=True, help="Seconds a connection may live."
)
@click.option("--lanes", type=click.Choice(sorted(_LANES)), default="multi", show_default=True)
@click.option(
    "--latency",
    default="none",
    show_default=True,
    help="none, typical, or e.g. base=0.3,input=5e-5,output=0.01.",
)
@click.option(
    "--prompt-cache",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Of what a replay repeats, the share (0 to 1) that the model need not read again.",
)
@click.option(
    "--script",
    default="",
    help="What the model does when a request does not say, e.g. 'calls=6 output_tokens=40'.",
)
@click.option(
    "--faults", default="", help="What goes wrong, e.g. 'drop,at=5,p=0.1; refuse,status=503,connection=2'."
)
@click.option(
    "--trace",
    "recorded",
    metavar="FILE",
    help="Play back the answers of a trace, with their timing; --latency and scripts then do not count.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the model's choices and of chance.")
@click.option("--api-key", envvar="WARMLINE_EMULATOR_KEY", help="Ask every client for this key.")
@click.option("--compression", is_flag=True, help="Agree to permessage-deflate where a client offers it.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="PEM file; with --tls-key serves TLS.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM file.")
def emulate(
    listen: str,
    max_age: float,
    lanes: str,
    latency: str,
    prompt_cache: float,
    script: str,
    faults: str,
    recorded: str | None,
    seed: int,
    api_key: str | None,
    compression: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Serve the Responses API over WebSocket and HTTP, with a scripted model behind it.

    Prints one line with its URL when it is ready, and ends on Ctrl-C. Requests steer the model by
    `metadata`, e.g. {"emulator": "calls=20 parallel=2 output_tokens=60"}.

    \b
    Examples:
      warmline emulate
      warmline emulate --listen 127.0.0.1:0 --latency typical --max-age 600
      warmline emulate --faults 'rate_limit,p=0.05,retry_after=0.5' --seed 7
      warmline emulate --trace fleet.trace
    """
    host, port = _address(listen)
    try:
        settings = EmulatorSettings(
            lanes=_LANES[lanes](),
            max_age=max_age,
            latency=latency,
            prompt_cache=prompt_cache,
            default_script=script,
            faults=faults,
            schedule=None if recorded is None else _schedule(recorded),
            seed=seed,
            api_key=api_key,
            compression=compression,
        )
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    tls = tls_context(tls_cert, tls_key)
    try:
        trio.run(_serve, settings, host, port, tls)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {listen}: {error.strerror or error}") from None


def _schedule(path: str) -> Schedule:
    from scheduler.trace.playback import schedule_of
    from scheduler.trace.reader import TraceUnreadable

    try:
        return schedule_of(path)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from None
    except TraceUnreadable as error:
        raise click.ClickException(str(error)) from None


def _address(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    number = whole_number(port, most=65535)
    if not colon or number is None:
        raise click.UsageError(f"--listen {listen!r} must look like HOST:PORT, e.g. 127.0.0.1:8123")
    return host.strip("[]") or "127.0.0.1", number


async def _serve(settings: EmulatorSettings, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with serve_emulator(settings, host=host, port=port, tls=tls) as running:
            write(f"warmline emulator ready at {running.url} ({running.socket_url})")
            async for _ in signals:
                return

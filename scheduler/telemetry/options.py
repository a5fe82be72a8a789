"""The options that every command with turns has, to say where its numbers go. `--help` needs no more than this."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import fields, frozen

from scheduler.commands.seconds import Seconds
from scheduler.telemetry.address import Address

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from pool.stats.snapshot import Snapshot
    from scheduler.telemetry.telemetry import Sources

F = TypeVar("F", bound=Callable[..., Any])


@frozen(kw_only=True)
class TelemetryChoice:
    """What was asked for. Nothing, by default: then telemetry costs nothing."""

    stats: str | None = None  # a file
    stats_interval: float = 10.0  # s
    stats_size: int = 64_000_000  # bytes, after which a log begins a new file
    metrics: Address | None = None
    dashboard: Address | None = None
    trace: str | None = None  # a file
    trace_contents: bool = False
    trace_limit: str | None = None
    otel: bool = False

    @property
    def wanted(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.stats or self.metrics or self.dashboard or self.trace or self.otel)


class AddressType(click.ParamType[Address]):
    """`[HOST:]PORT`."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse it."""
        if isinstance(value, Address):
            return value
        try:
            return Address.parse(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


OPTIONS = (
    click.option(
        "--stats",
        metavar="FILE.hlog",
        help="Append histograms of every interval, in HdrHistogram's log format.",
    ),
    click.option(
        "--stats-interval",
        type=Seconds(min=0.1, max=86_400),
        default=10.0,
        show_default=True,
        metavar="S",
        help="Seconds in an interval.",
    ),
    click.option(
        "--metrics",
        type=AddressType(),
        metavar="[HOST:]PORT",
        help="Serve /metrics to Prometheus; without HOST to this machine only.",
    ),
    click.option(
        "--dashboard",
        type=AddressType(),
        metavar="[HOST:]PORT",
        help="Serve a live page; it may share the port of --metrics.",
    ),
    click.option("--trace", metavar="FILE", help="Record every frame with its time, for `warmline trace`."),
    click.option("--trace-contents", is_flag=True, help="With what was said, not only with sizes and kinds."),
    click.option(
        "--trace-limit",
        metavar="SIZE",
        help="Of the whole trace; what happened last is kept.  [default: 100MB]",
    ),
    click.option(
        "--otel", is_flag=True, help="Export traces and metrics over OTLP, as the OTEL_ variables say."
    ),
)


def telemetry_options(function: F) -> F:
    """Add the options to a command, which is given one `telemetry=TelemetryChoice(...)` for them all."""
    names = {attribute.name for attribute in fields(TelemetryChoice)}

    @functools.wraps(function)
    def with_choice(*args: Any, **options: Any) -> Any:
        given = {name: options.pop(name) for name in names & options.keys()}
        if given["trace"] is None:
            for option in ("trace_contents", "trace_limit"):
                if given[option]:
                    raise click.UsageError(f"--{option.replace('_', '-')} is for a trace: add --trace FILE.")
        return function(*args, telemetry=TelemetryChoice(**given), **options)

    command: Any = with_choice
    for option in reversed(OPTIONS):
        command = option(command)
    return command  # type: ignore[no-any-return]  # what click leaves of F


def open_telemetry(
    choice: TelemetryChoice,
    sources: Sources,
    *,
    say: Callable[[str], None],
    beside: Callable[[], Snapshot] | None = None,
) -> AbstractAsyncContextManager[None]:
    """See `scheduler.telemetry.telemetry.open_telemetry`, which is imported when it is needed."""
    from scheduler.telemetry.telemetry import open_telemetry as opened

    return opened(choice, sources, say=say, beside=beside)

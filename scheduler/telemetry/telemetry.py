"""Everything that was asked for, open while the work goes on."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from attrs import define, field

from pool.auth import Secret
from pool.boundary import Boundary
from pool.redaction import PROCESS
from pool.stats.snapshot import Snapshot
from pool.web import Head, HttpConnection
from scheduler.telemetry import otel_setup
from scheduler.telemetry.address import Address
from scheduler.telemetry.errors import TelemetryError
from scheduler.telemetry.intervals import Sources
from scheduler.telemetry.listener import Listener, Page, cannot_listen, health, listening
from scheduler.telemetry.options import TelemetryChoice

__all__ = ["Sources", "check", "open_telemetry"]


def check(choice: TelemetryChoice) -> None:
    """See at once whether what was asked for can be had, before anything else is begun.

    Raises:
        TelemetryError: it cannot; the message says what to do.
        SettingsError: the trace's limit is none, or something else stands where the trace is to go.
    """
    if choice.stats is not None:
        from scheduler.telemetry.log_file import LogFile

        file = LogFile(choice.stats, choice.stats_size, str)
        file.open()
        file.close()
    if choice.trace is not None:
        from scheduler.trace.tracer import check_trace

        with _about_trace(choice.trace):
            check_trace(choice.trace, _limit(choice))
    for address in dict.fromkeys(filter(None, (choice.metrics, choice.dashboard))):
        try:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            socket.create_server((address.host, address.port), family=family).close()
        except OSError as error:
            raise cannot_listen(address, error) from None
    if choice.otel:
        otel_setup.check_installed()


@asynccontextmanager
async def open_telemetry(
    choice: TelemetryChoice,
    sources: Sources,
    *,
    say: Callable[[str], None],
    beside: Callable[[], Snapshot] | None = None,
) -> AsyncIterator[None]:
    """Send the numbers of `sources` where `choice` says, while the block runs. `say` shows a line to the user.

    What `beside` returns is in /metrics as well.

    Open it before any scheduler, and keep a scheduler among the sources until the block ends: its last interval is
    written then. Errors of the block may arrive in an `ExceptionGroup`.

    Raises:
        TelemetryError: something cannot be had: a file, a port.
    """
    async with AsyncExitStack() as stack:
        if choice.trace is not None:
            from scheduler.trace import open_trace

            trace = open_trace(choice.trace, contents=choice.trace_contents, limit=_limit(choice))
            with _about_trace(choice.trace):
                stack.enter_context(trace)
        if otel_setup.wanted(choice):
            await stack.enter_async_context(otel_setup.exporting(sources, say=say))
        if choice.stats is not None:
            from scheduler.telemetry.stats_log import open_stats_log

            log = open_stats_log(
                choice.stats,
                sources,
                interval=choice.stats_interval,
                size_limit=choice.stats_size,
                say=say,
            )
            await stack.enter_async_context(log)
        pages = _Pages(stack, choice, sources, say, beside)
        for address in dict.fromkeys(filter(None, (choice.metrics, choice.dashboard))):
            await pages.serve(address)
        yield


def _limit(choice: TelemetryChoice) -> int:
    from scheduler.trace.settings import LIMIT, parse_size

    return LIMIT if choice.trace_limit is None else parse_size(choice.trace_limit)


@contextmanager
def _about_trace(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TelemetryError(f"--trace {path}: {error.strerror}; name a file that can be written") from None


@define(eq=False)
class _Pages:
    """Serves what is to be served over HTTP, as long as `stack` is not closed."""

    stack: AsyncExitStack
    choice: TelemetryChoice
    sources: Sources
    say: Callable[[str], None]
    beside: Callable[[], Snapshot] | None
    _listeners: list[Listener] = field(factory=list, init=False)
    _boundaries: list[Boundary] = field(factory=list, init=False)

    async def serve(self, address: Address) -> None:
        """Serve what belongs on an address."""
        pages: list[Page] = [health]
        listener = await self.stack.enter_async_context(listening(address, pages))
        self._listeners.append(listener)
        if address == self.choice.metrics:
            from scheduler.telemetry.listener_stats import stats_of
            from scheduler.telemetry.prometheus import PATH, Metrics

            metrics = Metrics(self.sources, self.beside, lambda: stats_of(self._listeners, self._boundaries))
            pages.append(metrics.page)
            self.say(f"metrics: http://{listener.address}{PATH}")
        if address == self.choice.dashboard:
            pages.append(await self.stack.enter_async_context(self._dashboard(listener.address)))

    @asynccontextmanager
    async def _dashboard(self, bound: Address) -> AsyncIterator[Page]:
        from scheduler.dashboard.access import Access
        from scheduler.dashboard.server import Dashboard, url_of

        # Whoever can reach this machine from elsewhere must bring what only its user was told.
        token = None if bound.loopback else Secret(secrets.token_urlsafe(24))
        PROCESS.keep(None if token is None else token.reveal())
        dashboard = Dashboard(self.sources, Access(token=token, port=bound.port))
        self._boundaries.append(dashboard.boundary)

        async def page(http: HttpConnection, head: Head) -> bool:
            await dashboard.respond(http, head)
            return True

        async with dashboard.running():
            self.say(f"dashboard: {url_of(bound, bound.port, token)}")
            yield page

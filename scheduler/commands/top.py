"""`warmline top`: what a dashboard shows, in a terminal."""

from __future__ import annotations

import math
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

import click
import trio
from attrs import define, field

from scheduler.dashboard.client import BadAddress, DashboardUrl, NoDashboard, read_state

if TYPE_CHECKING:
    from rich.live import Live

    from scheduler.dashboard.frame import Frame

NARROW = 60  # columns below which nothing is shown well


@click.command()
@click.argument("url", envvar="WARMLINE_DASHBOARD_URL", metavar="URL")
@click.option("--source", default="", metavar="NAME", help="Which scheduler, where there are several.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.2, max=3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Print one look as plain text, and end; so does a pipe.")
def top(url: str, source: str, interval: float, once: bool) -> None:
    """Show in the terminal what the page at URL shows.

    URL is what a process with --dashboard printed, with its token if it has one; HOST:PORT or a port alone will do on
    this machine. WARMLINE_DASHBOARD_URL sets it too, and keeps a token out of the list of processes.

    Keys: q ends, s shows the next scheduler.
    """
    try:
        where = DashboardUrl.parse(url)
    except BadAddress as error:
        raise click.BadParameter(str(error), param_hint="URL") from None
    view = _View(where, source or where.source, interval)
    if once or not sys.stdout.isatty():
        view.read()
        _print(view.frame)
    else:
        trio.run(_live, view)


@define(eq=False)
class _View:
    """What is shown, and of whom."""

    url: DashboardUrl
    source: str
    interval: float
    frame: Frame = field(factory=dict, init=False)
    problem: str = field(default="", init=False)  # why the frame is an old one
    changed: trio.Event = field(factory=trio.Event, init=False)

    def read(self) -> None:
        """Take the next look."""
        self.frame = read_state(self.url, self.source)
        self.problem = ""

    def next_source(self) -> None:
        """Turn to the next scheduler."""
        names = self.frame.get("sources", [])
        if len(names) > 1:
            self.source = names[(names.index(self.frame["source"]) + 1) % len(names)]
            self.changed.set()


def _print(frame: Frame) -> None:
    from rich.console import Console

    from scheduler.dashboard.terminal import lines

    width = max(NARROW, shutil.get_terminal_size((100, 24)).columns)
    console = Console(width=width, highlight=False, markup=False, force_terminal=sys.stdout.isatty() or None)
    for line in lines(frame, width):
        console.print(line, soft_wrap=True)


async def _live(view: _View) -> None:
    """Look again and again, until the user has seen enough."""
    await trio.to_thread.run_sync(view.read)  # what is wrong from the beginning is an error, not a picture
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, _screen() as screen:
        async with trio.open_nursery() as nursery, _keys() as keys:
            nursery.start_soon(_keep_looking, view, screen)
            nursery.start_soon(_until_signal, signals, nursery.cancel_scope)
            async for key in keys:
                if key == "q":
                    break
                if key == "s":
                    view.next_source()
            nursery.cancel_scope.cancel()


async def _keep_looking(view: _View, screen: Live) -> None:
    while True:
        _show(view, screen)
        view.changed = trio.Event()
        with trio.move_on_after(view.interval):
            await view.changed.wait()
        try:
            await trio.to_thread.run_sync(view.read, abandon_on_cancel=True)
        except NoDashboard as error:
            view.problem = str(error)


def _show(view: _View, screen: Live) -> None:
    from rich.text import Text

    from scheduler.dashboard.terminal import lines

    size = screen.console.size
    shown = lines(
        view.frame, max(NARROW, size.width), notice="no answer, trying again" if view.problem else ""
    )
    if len(shown) > size.height:
        shown = [*shown[: size.height - 1], Text("... more in a higher window", style="dim")]
    with suppress(OSError, ValueError):
        screen.update(Text("\n", no_wrap=True, overflow="crop").join(shown), refresh=True)


async def _until_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _signal in signals:
        scope.cancel()


@contextmanager
def _screen() -> Iterator[Live]:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield live


@asynccontextmanager
async def _keys() -> AsyncIterator[AsyncIterator[str]]:
    """Read single keys while the block runs; none come where stdin is no terminal."""
    if not sys.stdin.isatty():
        yield _no_keys()
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield _pressed(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def _pressed(descriptor: int) -> AsyncIterator[str]:
    import os

    while True:
        await trio.lowlevel.wait_readable(descriptor)
        data = os.read(descriptor, 64)
        if not data:
            return  # the terminal is gone
        for key in data.decode(errors="ignore"):
            yield key


async def _no_keys() -> AsyncIterator[str]:
    await trio.sleep(math.inf)
    yield ""

"""Show on stderr how far a fleet is: a live bar on a terminal, plain lines in a pipe, or nothing.

Whatever happens to stderr (a closed pipe, say), the fleet goes on: a display that cannot write falls silent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Protocol

import trio

from pool.printable import printable
from scheduler.fleet.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

BAR_INTERVAL = 0.125
LINE_INTERVAL = 5.0
PREFIX = "warmline: "


class Display(Protocol):
    """Where progress goes. `update` gets a moment every `interval` seconds; `say` is a line for the user."""

    interval: float

    def update(self, progress: Progress) -> None:
        """Show a moment."""
        ...

    def say(self, line: str) -> None:
        """Show a line that stays."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class Quiet:
    """Only what is said to the user, no progress."""

    interval = LINE_INTERVAL

    def __init__(self, stream: IO[str], *, prefix: str = "") -> None:
        self._stream, self._prefix = stream, PREFIX + prefix

    def update(self, progress: Progress) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Write the line."""
        with suppress(OSError, ValueError):
            print(f"{self._prefix}{printable(line)}", file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing."""


class Lines(Quiet):
    """One plain line every few seconds."""

    def update(self, progress: Progress) -> None:
        """Write the moment as a line."""
        self.say(progress.to_line())


class Bar:
    """A live bar, by rich. What tools print meanwhile appears above it."""

    interval = BAR_INTERVAL

    def __init__(self, stream: IO[str], *, width: int | None = None) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        class Console(RichConsole):
            def on_broken_pipe(self) -> None:
                self.quiet = True  # rich would end the process here

        self._console = Console(file=stream, force_terminal=True, width=width, highlight=False)
        self._rich: RichProgress = RichProgress(
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[facts]}", markup=False, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[eta]}", style="cyan", markup=False, table_column=Column(no_wrap=True)),
            console=self._console,
            auto_refresh=False,
            transient=True,
            expand=True,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=False,
        )
        self._task = self._rich.add_task("", total=None, facts="starting", eta="")
        self._rich.start()

    def update(self, progress: Progress) -> None:
        """Redraw the bar."""
        with suppress(OSError, ValueError):
            self._rich.update(
                self._task,
                total=progress.total,
                completed=progress.ended,
                facts=printable(progress.note or progress.facts()),
                eta=progress.eta,
            )
            self._rich.refresh()

    def say(self, line: str) -> None:
        """Write the line above the bar."""
        with suppress(OSError, ValueError):
            self._console.print(f"{PREFIX}{printable(line)}", markup=False, emoji=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""
        with suppress(OSError, ValueError):
            self._rich.stop()


def open_display(stream: IO[str], *, quiet: bool = False) -> Display:
    """Choose the display that fits `stream`."""
    if quiet:
        return Quiet(stream)
    if stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown"):
        return Bar(stream)
    return Lines(stream)


async def keep_showing(display: Display, moment: Callable[[], Progress]) -> None:
    """Update the display until cancelled."""
    while True:
        await trio.sleep(display.interval)
        display.update(moment())

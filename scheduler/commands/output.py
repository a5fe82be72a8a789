"""All that commands print goes through here: whatever a text holds, it does not steer the terminal.

A table, a report or an error may hold names and words of a client, a server or a model. What stands in them is shown
as escapes. Colours of our own are put around a part afterwards. Only data that a program may read (JSON, the output
of a model) goes into a pipe as it is. A text of several lines has to say so: else a name could forge one.
"""

from __future__ import annotations

import os
import sys
import traceback

import click

from pool.printable import printable, printable_lines
from pool.redaction import redacted


def write(*parts: str, err: bool = False, nl: bool = True, lines: bool = False, data: bool = False) -> None:
    """Print parts one after the other; those that are `styled` keep their colours.

    Args:
        parts: one line in all.
        err: on stderr.
        nl: with a line break at the end.
        lines: it may have several lines; what of them is somebody else's has been made `printable` before.
        data: in a pipe it stays as it is; on a terminal it may have several lines.
    """
    stream = sys.stderr if err else sys.stdout
    piped = data and not stream.isatty()
    if piped:
        text = "".join(parts)
    else:
        safe = printable_lines if lines or data else printable
        text = "".join(part if isinstance(part, Styled) else safe(part) for part in parts)
    # By itself click takes colours out of what goes into a pipe: of our own, but not out of data.
    # Half a surrogate pair may come out of a file name; a stream that cannot encode it would end the command.
    encoding = getattr(stream, "encoding", None) or "utf-8"
    click.echo(
        text.encode(encoding, "backslashreplace").decode(encoding, "replace"),
        err=err,
        nl=nl,
        color=piped or None,
    )


class Styled(str):
    """Text that has been made safe, with the sequences for its colours around it."""

    __slots__ = ()


def styled(text: str, *, dim: bool = False, bold: bool = False, fg: str | None = None) -> Styled:
    """Return a text in colours; without them where NO_COLOR is set, or (by click) where stdout is no terminal."""
    safe = printable(text)
    if os.environ.get("NO_COLOR"):
        return Styled(safe)
    return Styled(click.style(safe, dim=dim or None, bold=bold or None, fg=fg))


def write_traceback(error: BaseException) -> None:
    """Print a traceback on stderr. It holds the words of exceptions that are not ours, too."""
    write(redacted("".join(traceback.format_exception(error))), err=True, nl=False, lines=True)

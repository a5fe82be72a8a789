"""Show what `warmline trace` was asked for."""

from __future__ import annotations

import difflib
import os
import shutil
import stat
import sys
import textwrap
from collections.abc import Iterable, Mapping
from typing import TypeVar

import click
from attrs import asdict

from pool.printable import printable
from pool.private_files import open_private
from pool.wire.codec import to_json
from scheduler.commands.output import styled, write
from scheduler.trace.har import har_of
from scheduler.trace.odd import Finding, odd
from scheduler.trace.reader import Reading, TraceUnreadable, open_reading
from scheduler.trace.story import Conversation, Story
from scheduler.trace.tell import tell
from scheduler.trace.view import listing, timeline
from scheduler.trace.view.words import WIDTH, cut, headline, moment, plural

T = TypeVar("T")

LABEL = 14  # columns
OF_A_KIND = 10  # findings shown; all are in --json
NEAR = 3  # names suggested


def show(
    *,
    file: str,
    conversation: str | None,
    connection: str | None,
    odd: bool,
    sort: str | None,
    slowest: int | None,
    har: str | None,
    as_json: bool,
) -> int:
    """Show it, and return the exit status."""
    try:
        reading = open_reading(file)
        story = tell(reading)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror or error}") from None
    except TraceUnreadable as error:
        raise click.ClickException(str(error)) from None
    if har is not None:
        _write_har(reading, story, har)
    elif conversation is not None:
        _show_conversation(story, _named("conversation", conversation, story.conversations), as_json=as_json)
    elif connection is not None:
        found = _named("connection", connection, story.connections)
        rows = timeline.of_connection(found)
        if as_json:
            _print_json({"connection": found.name, "rows": [asdict(row) for row in rows]})
        else:
            _print_rows(rows)
    elif odd:
        _show_odd(story, as_json=as_json)
    else:
        order = "slowest" if slowest is not None else sort or "start"
        _show_list(story, listing.listed(story, sort=order, most=slowest), as_json=as_json)
    return 0


def _named(what: str, name: str, among: Mapping[str, T]) -> T:
    if name in among:
        return among[name]
    near = difflib.get_close_matches(name, among, n=NEAR) or [one for one in among if name in one][:NEAR]
    if not near and len(among) <= NEAR:
        near = list(among)
    hint = f"; is it {' or '.join(near)}?" if near else f"; there are {len(among)}"
    raise click.UsageError(f"no {what} {name!r} in this trace{hint}")


def _show_list(story: Story, conversations: list[Conversation], *, as_json: bool) -> None:
    if as_json:
        _print_json({**_facts(story), "conversations": [listing.summary(one) for one in conversations]})
        return
    for line in headline(story):
        write(cut(line, WIDTH))
    if conversations:
        head, *rows = listing.rows(conversations)
        write("")
        write(styled(head, dim=True))
        for row, one in zip(rows, conversations, strict=True):
            failed = any(turn.error for turn in one.turns)
            write(styled(row, fg="red") if failed else row)


def _show_conversation(story: Story, conversation: Conversation, *, as_json: bool) -> None:
    if as_json:
        _print_json({**listing.summary(conversation), **timeline.as_json(conversation)})
        return
    tenant = f", tenant {conversation.tenant}" if conversation.tenant else ""
    turns = plural(len(conversation.turns), "turn")
    write(
        styled(
            cut(f"{conversation.name}{tenant}: {turns} on {', '.join(conversation.lanes)}", WIDTH), bold=True
        )
    )
    _print_rows(timeline.of_conversation(story, conversation))


def _print_rows(rows: Iterable[timeline.Row]) -> None:
    width = max(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) if sys.stdout.isatty() else WIDTH
    for row in rows:
        prefix = f"{moment(row.at)}  {row.label:<{LABEL}}"
        text = printable(row.text)
        lines = textwrap.wrap(text, width - len(prefix), break_on_hyphens=False) or [""]
        for number, line in enumerate(lines):
            start = styled(prefix, dim=True) if not number else " " * len(prefix)
            write(start, styled(line, fg="yellow") if row.bad else line.rstrip())


def _show_odd(story: Story, *, as_json: bool) -> None:
    findings = odd(story)
    if as_json:
        _print_json({**_facts(story), "findings": [asdict(one) for one in findings]})
        return
    if not findings:
        write(f"Nothing odd in {plural(len(story.turns), 'turn')}.")
        return
    kinds: dict[str, list[Finding]] = {}
    for one in findings:
        kinds.setdefault(one.kind, []).append(one)
    for kind, group in kinds.items():
        write(styled(f"{kind} ({len(group)})", bold=True))
        for one in group[:OF_A_KIND]:
            prefix = f"{moment(one.at)}  "
            text = textwrap.fill(
                printable(one.text),
                WIDTH,
                initial_indent=prefix,
                subsequent_indent=" " * len(prefix),
                break_on_hyphens=False,
            )
            write(text, lines=True)
        if len(group) > OF_A_KIND:
            write(f"           ... and {len(group) - OF_A_KIND} more (all: --json)")


def _facts(story: Story) -> dict[str, object]:
    return {
        "started": story.header.started,
        "seconds": round(story.seconds, 6),
        "contents": story.header.contents,
        "turns": len(story.turns),
        "connections": sum(one.dial is not None for one in story.connections.values()),
        "lost": sum(one.lost for one in story.connections.values()),
        "dials_failed": len(story.dials_failed),
        "unrecorded": story.unrecorded,
    }


def _write_har(reading: Reading, story: Story, path: str) -> None:
    har = har_of(story, reading)
    if os.path.exists(path) and os.path.samefile(path, reading.path):
        raise click.UsageError("--har must name another file than the trace.")
    try:
        with open(open_private(path, os.O_WRONLY, setting="har").fd, "wb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.truncate()
            file.write(to_json(har))
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from None
    entries = har["log"]["entries"]
    messages = sum(len(entry.get("_webSocketMessages", ())) for entry in entries)
    left_out = "" if story.header.contents else "; contents were not recorded (--trace-contents does that)"
    write(f"{path}: {plural(len(entries), 'entry', 'entries')}, {plural(messages, 'message')}{left_out}")


def _print_json(value: object) -> None:
    write(to_json(value).decode(), data=True)

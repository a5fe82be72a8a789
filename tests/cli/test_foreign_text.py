"""Whatever a name, an error or an output holds, a terminal shows it and is not steered; a pipe gets data whole."""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import logging
import os
import pty
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console

from pool.errors import DialFailed, SettingsError
from pool.redaction import Secrets
from pool.wire.codec import to_json
from scheduler.cli import invoke
from scheduler.commands.columns import lines_of
from scheduler.commands.display import Bar, Display, Lines, Quiet
from scheduler.commands.failures import explain
from scheduler.commands.notices import logging_to
from scheduler.commands.output import styled, write
from scheduler.dashboard.client import DashboardUrl, _checked
from scheduler.dashboard.shown import shown
from scheduler.errors import OutputFileError
from scheduler.fleet.progress import Progress
from scheduler.fleet.report import FleetReport, Runs
from scheduler.telemetry.otel_setup import _Once
from scheduler.worker.asking import _show
from scheduler.worker.job import Job
from scheduler.worker.queue import Cause, Record, State
from scheduler.worker.redis_link import Link
from scheduler.worker.showing import Following, Table, details

ROOT = Path(__file__).parent.parent.parent
KEY = "sk-test-0123456789-abcdefghijklmnop"
ODD = "x\x1b]0;pwned\x07\x1b[2J\x9b8m\r\nforged\u202e[bold red][link=http://evil]:skull:"
# How it looks on a terminal
SAFE = r"x\u001b]0;pwned\u0007\u001b[2J\u009b8m\u000d\u000aforged\u202e[bold red][link=http://evil]:skull:"
OURS = frozenset("\x1b\n\r")  # of what rich and click write themselves


class Terminal:
    """A terminal, and what was written to it."""

    def __init__(self) -> None:
        self._ours, self._theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        self.stream = open(self._theirs, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 - the fixture closes it

    def __call__(self) -> str:
        self.stream.flush()
        parts = []
        while True:
            try:
                parts.append(os.read(self._ours, 65536))
            except OSError:
                return b"".join(parts).decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self._ours)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def on_a_terminal(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test with stdout and stderr on its `terminal`. pytest puts its own there after the fixtures."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        stream = given["terminal"].stream
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            test(**given)

    return run


def assert_safe(text: str, *, lines: bool = False) -> None:
    text = text.replace("\r\n", "\n")  # the terminal's own doing
    odd = {letter for letter in text if not letter.isprintable()} - {"\n", "\t"}
    assert not odd, f"{odd} in {text!r}"
    if not lines:
        assert "\nforged" not in text


@on_a_terminal
def test_a_line_on_a_terminal(terminal: Terminal) -> None:
    write(ODD)
    write(styled(ODD, fg="red"), err=True)
    write("half \ud800 of a pair")
    text = terminal()
    assert text.count(SAFE) == 2
    assert "\x1b[31m" + SAFE + "\x1b[0m" in text
    assert_safe(text.replace("\x1b[31m", "").replace("\x1b[0m", ""))


@on_a_terminal
def test_colours_of_somebody_else_are_none(terminal: Terminal) -> None:
    write("\x1b[8mhidden", click.style("x", fg="red"))  # only what `styled` made is let through
    assert_safe(terminal())


@on_a_terminal
def test_data_is_whole_in_a_pipe_and_safe_on_a_terminal(terminal: Terminal) -> None:
    write(ODD, data=True)
    assert_safe(terminal(), lines=True)
    with contextlib.redirect_stdout(io.StringIO()) as pipe:
        write(ODD, data=True)
    assert pipe.getvalue() == ODD + "\n"


@on_a_terminal
def test_what_is_said_while_a_job_is_followed(terminal: Terminal) -> None:
    step = {"step": "turn", "output": [{"type": "function_call", "name": ODD, "arguments": ODD}]}
    for json in (False, True):
        _show({"step": "draft", "text": ODD}, Following(), as_json=json)
        _show(step, Following(), as_json=json)
        _show({"step": "results", "results": [{"failed": True, "output": ODD}]}, Following(), as_json=json)
        _show({"step": "begun", "call_id": ODD}, Following(), as_json=json)
    assert_safe(terminal(), lines=True)


def record() -> Record:
    return Record(
        job=Job(id="a", input=ODD),  # its names are checked when it is made
        state=State.DEAD,
        enqueued_at=0.0,
        due_at=0.0,
        worker=ODD,
        cause=Cause(type=ODD, message=ODD, code=ODD),
    )


@on_a_terminal
def test_a_job(terminal: Terminal) -> None:
    write(Table(None).row(record()))
    write(Table(60).row(record()))
    write(details(record()), lines=True)
    assert_safe(terminal())


@on_a_terminal
def test_a_report(terminal: Terminal) -> None:
    report = FleetReport(
        runs=Runs(total=1), seconds=1.0, endpoint=ODD, retries={ODD: 1}, placements={ODD: 2}, results_file=ODD
    )
    write(report.to_text(), lines=True)
    text = terminal()
    assert text.count(SAFE) >= 3
    assert_safe(text)


@pytest.mark.parametrize("make", [Quiet, Lines, lambda stream: Bar(stream, width=400)])
def test_a_display(make: Callable[[Any], Display]) -> None:
    stream = io.StringIO()
    display = make(stream)
    display.say(ODD)
    display.update(Progress(total=3, note=ODD))
    display.close()
    text = stream.getvalue()
    assert SAFE in text
    assert "\x1b]0" not in text
    assert "\x1b[2J" not in text
    assert "\x1b[1;31m" not in text, "no markup"
    assert {letter for letter in text if not letter.isprintable()} <= OURS
    assert "\nforged" not in text


@on_a_terminal
def test_what_the_packages_log(terminal: Terminal) -> None:
    secrets = Secrets()
    secrets.keep(KEY)
    with logging_to(Quiet(sys.stderr), verbose=True):
        logging.getLogger("warmline.pool").warning("dial failed: %s", f"{ODD}{KEY}")
    text = terminal()
    assert SAFE in text
    assert KEY not in text
    assert_safe(text)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        DialFailed(f"{ODD} {KEY}"),
        SettingsError("field", ODD, ODD),
        OutputFileError(ODD, ODD),
        OSError(2, ODD, ODD),
        ValueError(f"{ODD}"),
        ExceptionGroup(ODD, [ValueError(ODD)]),
    ],
    ids=lambda error: type(error).__name__,
)
@on_a_terminal
def test_how_a_command_ends(terminal: Terminal, error: Exception, debug: bool) -> None:
    assert explain(error, debug=debug) in (1, 2)
    text = terminal()
    assert "warmline: error: " in text
    assert_safe(text, lines=debug)


@pytest.mark.parametrize(
    "args",
    [
        [ODD],
        ["run", ODD],
        ["ctl", ODD],
        ["ctl", "show", ODD],
        ["top", ODD],
        ["trace", ODD],
        ["run", f"--{ODD}"],
    ],
)
@on_a_terminal
def test_a_wrong_word_in_a_command(terminal: Terminal, args: list[str]) -> None:
    assert invoke(args) != 0
    text = terminal()
    assert "warmline: error: " in text
    assert_safe(text)


def test_a_table() -> None:
    for width in (None, 40, 200):
        for line in lines_of(("name", ODD), [[ODD, 1], [f"{ODD} {ODD}", 2]], width):
            assert line.isprintable()


def test_a_dashboard_of_somebody_else() -> None:
    frame = {"verdict": [ODD], "figures": {ODD: ODD}}
    seen = _checked(DashboardUrl.parse("127.0.0.1:1"), 200, to_json(frame))
    assert seen == {"verdict": [SAFE], "figures": {SAFE: SAFE}}


def test_a_frame_shows_no_key_and_no_sequence() -> None:
    secrets = Secrets()
    secrets.keep(KEY)
    innocent = {"a": ["b", 1]}
    assert shown(innocent) is innocent
    text = str(shown({"a": [ODD, {KEY: "\ud800"}], "b": KEY}))
    assert KEY not in text
    assert_safe(text.replace("\\\\", "\\"))


def test_what_an_exporter_complains_of() -> None:
    lines: list[str] = []
    secrets = Secrets()
    secrets.keep(KEY)
    record = logging.LogRecord("opentelemetry", logging.ERROR, "", 0, "Failed: %s", (f"{KEY} {ODD}",), None)
    _Once(lines.append).emit(record)
    assert KEY not in lines[0]
    assert lines[0].isprintable()


def test_only_one_place_prints() -> None:
    allowed = {
        "scheduler/commands/output.py": 1,
        "scheduler/cli.py": 1,  # our version, before anything is imported
        "scheduler/commands/display.py": 1,
    }
    found: dict[str, int] = {}
    for path in (ROOT / "scheduler").rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                what = ast.unparse(node.func)
                if what in (
                    "click.echo",
                    "click.secho",
                    "print",
                    "traceback.print_exception",
                    "traceback.print_exc",
                ):
                    found[name] = found.get(name, 0) + 1
                if what.endswith("Console") and name != "scheduler/commands/columns.py":
                    given = {one.arg: ast.unparse(one.value) for one in node.keywords}
                    assert given.get("markup") == "False" or name.endswith("display.py"), name
    assert found == allowed


def test_rich_takes_nothing_for_markup() -> None:
    """As `Console` is used here, so that its next version is looked at, too."""
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=200, highlight=False).print(
        "[bold red]a[/] :skull:", markup=False, emoji=False, soft_wrap=True
    )
    assert stream.getvalue() == "[bold red]a[/] :skull:\n"


def test_a_queues_password_is_in_use() -> None:
    from pool.redaction import redacted
    from scheduler.worker.redis_address import read_address

    address = read_address("redis://me:the-password-of-redis@127.0.0.1:1/0")
    link = Link(address, None, None)  # type: ignore[arg-type]
    lost: Any = _Lost()
    assert "the-password" not in str(link._judged(lost, _said("WRONGPASS the-password-of-redis \x1b[2J")))
    assert redacted("the-password-of-redis") == "[hidden]"


class _Lost:
    def invalidate(self) -> None:
        pass


def _said(text: str) -> Any:
    from coredis.exceptions import ResponseError

    return ResponseError(text)

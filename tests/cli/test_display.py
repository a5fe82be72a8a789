"""What is shown while a fleet runs, on terminals, in pipes, and when nobody can look."""

from __future__ import annotations

import io
import logging
import re

import pytest
import trio

from scheduler.commands.display import Bar, Lines, Quiet, keep_showing, open_display
from scheduler.commands.notices import logging_to
from scheduler.fleet.progress import Progress
from tests.support.displays import FakeDisplay

SOME = Progress(total=120, ended=30, failed=2, running=8, turns=200, hot=150, elapsed=10)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_pipe_gets_plain_lines() -> None:
    stream = io.StringIO()
    display = open_display(stream)
    assert isinstance(display, Lines)
    display.update(SOME)
    display.say("hello [red]")
    display.close()
    assert stream.getvalue() == f"warmline: {SOME.to_line()}\nwarmline: hello [red]\n"
    assert "\x1b" not in stream.getvalue()


def test_quiet_says_only_what_is_said() -> None:
    stream = io.StringIO()
    display = open_display(stream, quiet=True)
    assert type(display) is Quiet
    display.update(SOME)
    display.say("hello")
    assert stream.getvalue() == "warmline: hello\n"


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("TERM", kind)
    assert isinstance(open_display(Terminal()), Lines)


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    display = open_display(stream)
    assert isinstance(display, Bar)
    display.update(SOME)
    display.say("t1 failed: [oops]")
    display.update(Progress(total=120, ended=30, note="stopping; Ctrl-C again cancels"))
    display.close()
    shown = plain(stream.getvalue())
    assert "30/120" in shown
    assert SOME.facts() in shown
    assert "0:30" in shown
    assert "warmline: t1 failed: [oops]" in shown
    assert "stopping; Ctrl-C again cancels" in shown
    assert (
        stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1
    )  # the cursor is back


@pytest.mark.parametrize("width", [80, 60])
def test_the_bar_fits(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    bar = Bar(stream, width=width)
    bar.update(
        Progress(total=12_000, ended=3000, failed=20, running=128, turns=20_000, hot=19_000, elapsed=1000)
    )
    bar.close()
    lines = [line for line in re.split(r"[\r\n]+", plain(stream.getvalue())) if "3000/" in line]
    assert lines
    assert max(map(len, lines)) <= width


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    bar = Bar(stream, width=80)
    bar.update(SOME)
    bar.close()
    colours = re.findall(r"\x1b\[([0-9;]*)m", stream.getvalue())
    assert not [code for code in colours if re.search(r"(^|;)(3[0-8]|9[0-7])(;|$)", code)]


@pytest.mark.parametrize("kind", [Quiet, Lines, Bar])
def test_a_stream_that_broke_does_not_break_the_fleet(
    kind: type[Quiet | Bar], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")

    class Broken(Terminal):
        broken = False

        def write(self, text: str) -> int:
            if self.broken:
                raise BrokenPipeError
            return super().write(text)

    stream = Broken()
    display = kind(stream)
    stream.broken = True
    display.say("hello")
    display.update(SOME)
    display.close()


async def test_it_is_shown_every_so_often(autojump_clock: trio.testing.MockClock) -> None:
    display = FakeDisplay(interval=2.0)
    with trio.move_on_after(7):
        await keep_showing(display, lambda: Progress(total=1, elapsed=trio.current_time()))
    assert [moment.elapsed for moment in display.moments] == [2, 4, 6]


def test_warnings_become_notices_but_not_one_for_each_connection() -> None:
    display = FakeDisplay()
    log = logging.getLogger("warmline.pool")
    with logging_to(display, verbose=False) as notices:
        log.warning("dial of c%d failed", 0)
        notices.muted = False
        for number in range(5):
            log.warning("dial of c%d failed", number)
        log.warning("something else")
        log.info("details")
    log.info("afterwards")
    assert display.said == ["dial of c0 failed", "something else"]


def test_with_debug_everything_is_a_notice() -> None:
    display = FakeDisplay()
    log = logging.getLogger("warmline.pool")
    with logging_to(display, verbose=True):
        log.warning("one")
        log.warning("one")
        log.debug("details")
    assert display.said == ["one", "one", "details"]
    assert logging.getLogger("warmline").propagate

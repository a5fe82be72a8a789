"""The shared options, and what is opened for them."""

from __future__ import annotations

import socket
from pathlib import Path

import click
import pytest
import trio
from click.testing import CliRunner

from pool import SettingsError
from scheduler.scheduler import Scheduler
from scheduler.telemetry.address import Address
from scheduler.telemetry.errors import TelemetryError
from scheduler.telemetry.options import TelemetryChoice, open_telemetry, telemetry_options
from scheduler.telemetry.telemetry import check


@pytest.mark.parametrize(
    ("text", "address", "shown", "loopback"),
    [
        ("9100", Address("127.0.0.1", 9100), "127.0.0.1:9100", True),
        ("0", Address("127.0.0.1", 0), "127.0.0.1:0", True),
        ("0.0.0.0:80", Address("0.0.0.0", 80), "0.0.0.0:80", False),
        ("[::1]:9100", Address("::1", 9100), "[::1]:9100", True),
        ("localhost:1", Address("localhost", 1), "localhost:1", True),
        ("build-7:65535", Address("build-7", 65535), "build-7:65535", False),
    ],
)
def test_addresses(text: str, address: Address, shown: str, loopback: bool) -> None:
    found = Address.parse(text)
    assert (found, str(found), found.loopback) == (address, shown, loopback)
    assert Address.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no port; give a number from 0"),
        ("http", "'http' is no port"),
        ("65536", "'65536' is no port"),
        ("-1", "'-1' is no port"),
        (":9100", "the host is missing; say 127.0.0.1:9100 or only the port"),
        ("::1:9100", r"write an IPv6 address in brackets, as in \[::1\]:9100"),
    ],
)
def test_what_is_no_address(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Address.parse(text)


@click.command()
@click.option("--model")
@telemetry_options
@click.pass_context
def command(context: click.Context, model: str | None, telemetry: TelemetryChoice) -> None:
    """A command with turns."""
    assert isinstance(context, click.Context)
    click.echo(f"{model} {telemetry}")


def test_a_command_is_given_one_choice() -> None:
    everything = ["--stats", "x.hlog", "--stats-interval", "2", "--metrics", "9100", "--otel", "--model", "m"]
    said = CliRunner().invoke(command, everything, catch_exceptions=False).output
    expected = TelemetryChoice(
        stats="x.hlog", stats_interval=2.0, metrics=Address("127.0.0.1", 9100), otel=True
    )
    assert said == f"m {expected}\n"
    assert expected.wanted
    assert CliRunner().invoke(command, []).output == f"None {TelemetryChoice()}\n"
    assert not TelemetryChoice().wanted


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--metrics", "x"], "'x' is no port"),
        (["--stats-interval", "0"], "0.1<=x<=86400"),
        (["--stats-interval", "nan"], "nan"),
        (["--trace-contents"], "add --trace FILE"),
        (["--trace-limit", "1GB"], "add --trace FILE"),
    ],
)
def test_wrong_options(options: list[str], why: str) -> None:
    result = CliRunner().invoke(command, options)
    assert result.exit_code == 2
    assert why in result.output


async def answer(port: int, path: str) -> bytes:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        return bytes(await stream.receive_some(1 << 20))


async def test_metrics_and_dashboard_share_a_port() -> None:
    said: list[str] = []
    sources: dict[str, Scheduler] = {}
    choice = TelemetryChoice(metrics=Address("127.0.0.1", 0), dashboard=Address("127.0.0.1", 0))
    async with open_telemetry(choice, lambda: sources, say=said.append):
        metrics, dashboard = said
        port = int(metrics.removesuffix("/metrics").rpartition(":")[2])
        assert metrics == f"metrics: http://127.0.0.1:{port}/metrics"
        assert dashboard == f"dashboard: http://127.0.0.1:{port}/"
        with trio.fail_after(5):
            assert (await answer(port, "/metrics")).startswith(b"HTTP/1.1 200")
            assert b"ok" in await answer(port, "/healthz")
            assert b"<!doctype html>" in await answer(port, "/")
    with pytest.raises(OSError):
        await answer(port, "/metrics")


async def test_two_ports_are_two_listeners() -> None:
    said: list[str] = []
    free = socket.create_server(("127.0.0.1", 0))
    other = Address("127.0.0.1", free.getsockname()[1])
    free.close()
    choice = TelemetryChoice(metrics=Address("127.0.0.1", 0), dashboard=other)
    async with open_telemetry(choice, dict, say=said.append):
        port = int(said[0].removesuffix("/metrics").rpartition(":")[2])
        with trio.fail_after(5):
            assert (await answer(port, "/")).startswith(b"HTTP/1.1 404")
            assert b"<!doctype html>" in await answer(other.port, "/")


async def test_a_busy_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = Address("127.0.0.1", busy.getsockname()[1])
        choice = TelemetryChoice(metrics=address)
        expected = f"cannot listen on {address}: .*; name another port, or 0 for any free one"
        with pytest.raises(TelemetryError, match=expected):
            check(choice)
        with pytest.raises(TelemetryError, match=expected):
            async with open_telemetry(choice, dict, say=print):
                pass


def test_everything_that_can_be_had_is(tmp_path: Path) -> None:
    check(TelemetryChoice())
    check(TelemetryChoice(stats=str(tmp_path / "x.hlog"), metrics=Address("127.0.0.1", 0)))
    with pytest.raises(TelemetryError, match="name a file that can be written"):
        check(TelemetryChoice(stats=str(tmp_path)))


def test_a_trace_is_checked_before_anything_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    check(TelemetryChoice(trace=str(path)))
    with pytest.raises(
        TelemetryError, match=r"--trace .*/no/a.trace: No such file or directory; name a file"
    ):
        check(TelemetryChoice(trace=str(tmp_path / "no" / "a.trace")))
    with pytest.raises(SettingsError, match="trace limit = 'much': must be a size"):
        check(TelemetryChoice(trace=str(path), trace_limit="much"))
    path.write_text("a diary\n")
    with pytest.raises(SettingsError, match="is there and is no trace"):
        check(TelemetryChoice(trace=str(path)))
    assert path.read_text() == "a diary\n"


async def test_a_disk_that_is_full_already_is_no_bug() -> None:
    with pytest.raises(TelemetryError, match="--trace /dev/full: No space left on device"):
        async with open_telemetry(TelemetryChoice(trace="/dev/full"), dict, say=print):
            pass

"""Who can reach the gateway: sockets that were passed on to it are looked at as well, and open keys are said."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from pool.settings import Endpoint
from scheduler.commands.serving import greet
from scheduler.gateway.server import RunningGateway

# As systemd starts a service: the socket is descriptor 3, and meant for this very process.
ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "scheduler", *sys.argv[2:]])
"""
SERVE = ("serve", "--url", "http://127.0.0.1:9/v1")


@pytest.fixture
def everywhere() -> Iterator[socket.socket]:
    """A socket at an address of every interface; it does not listen, so nobody gets in."""
    with socket.socket() as one:
        one.bind(("0.0.0.0", 0))
        yield one


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WARMLINE_")}
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env={**environ, "WARMLINE_API_KEY": "sk-secret"},
        timeout=60,
        check=False,
        **options,
    )


def assert_refused(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(
        "warmline: error: listen = '0.0.0.0': whoever reaches this address could use"
    )
    assert done.stderr.count("\n") == 1
    assert "sk-secret" not in done.stderr


def test_a_socket_of_systemd_s_that_strangers_reach_is_not_served_open(everywhere: socket.socket) -> None:
    """Though --listen says loopback."""
    options = ("--listen", "127.0.0.1:0", "--client-keys", "open", "--admin", "none")
    descriptor = everywhere.fileno()
    assert_refused(run("-c", ACTIVATED, str(descriptor), *SERVE, *options, pass_fds=[descriptor]))


def test_nor_is_one_that_is_taken_over_and_the_other_gateway_goes_on(
    everywhere: socket.socket, tmp_path: Path
) -> None:
    path, heard = str(tmp_path / "admin.sock"), b""

    def pass_on() -> None:
        nonlocal heard
        with listening.accept()[0] as connection:
            connection.recv(100)
            socket.send_fds(connection, [b'{"sockets":1}\n'], [everywhere.fileno()])
            heard = connection.recv(100)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen()
        thread = threading.Thread(target=pass_on)
        thread.start()
        options = ("--listen", "127.0.0.1:0", "--client-keys", "open", "--admin", path, "--takeover")
        assert_refused(run("-m", "scheduler", *SERVE, *options))
        thread.join(10)
    assert heard == b""  # not that it is ready: only then the other one would stop


@frozen
class Bound:
    """Stands for a listener: where it is bound."""

    host: str

    @property
    def socket(self) -> Bound:
        """Itself."""
        return self

    def getsockname(self) -> tuple[str, int]:
        """Return host and port."""
        return self.host, 8787


@pytest.mark.parametrize(
    ("host", "tls", "warned"),
    [
        ("0.0.0.0", False, True),
        ("192.0.2.1", False, True),
        ("::", False, True),
        ("0.0.0.0", True, False),
        ("127.0.0.1", False, False),
        ("::1", False, False),
    ],
)
def test_keys_that_travel_in_the_open_are_said(
    host: str, tls: bool, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    running = RunningGateway(None, [Bound(host)], tls)  # type: ignore[arg-type,list-item]  # nobody is served
    greet(Endpoint.openai(), running, "forward")
    said = capsys.readouterr()
    assert f"ready at http{'s' if tls else ''}://" in said.out
    assert said.err == (
        f"note: whoever is on the way to {host} can read keys and contents: "
        "--tls-cert and --tls-key, or a proxy with TLS in front, keep them secret\n"
        if warned
        else ""
    )

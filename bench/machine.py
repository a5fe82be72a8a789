"""What a figure was measured on: without it, it says nothing."""

from __future__ import annotations

import math
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What the lines of `describe` begin with
HEADER = ("machine   ", "python    ", "packages  ", "commit    ", "load      ")
PACKAGES = ("trio", "trio-websocket", "wsproto", "msgspec", "attrs", "openai", "pydantic", "websockets")


def describe() -> str:
    """Return machine, Python, library versions and commit, one line each."""
    return "\n".join(
        (
            f"machine   {_processor()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
            f"python    {platform.python_implementation()} {platform.python_version()}",
            f"packages  {', '.join(f'{name} {_version(name)}' for name in PACKAGES)}",
            f"commit    {_commit()}",
            f"load      {', '.join(f'{load:.2f}' for load in os.getloadavg())} (1, 5, 15 min, before)",
        )
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _commit() -> str:
    def git(*arguments: str) -> str:
        argv = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "pool", "scheduler", "bench")
        return git("rev-parse", "--short", "HEAD") + (" and uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def allow_files(wanted: int) -> None:
    """Raise the limit of open files, for this process and the emulator that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = hard == resource.RLIM_INFINITY
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if wanted > (math.inf if infinite else hard):
        sys.exit(
            f"{wanted} open files are needed and the limit is {hard}; raise it (ulimit -Hn) or open fewer"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

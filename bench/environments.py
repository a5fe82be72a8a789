"""Each peer in an environment of its own, so that nobody's requirements bend another's."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence

from bench.machine import ROOT

FOLDER = ROOT / ".venv-bench"
# Pinned: a result stands for these versions. attrs is what the job is read with.
ENVIRONMENTS: dict[str, Sequence[str]] = {
    "openai": ("openai[realtime]==3.54.0", "attrs"),
    "agents": ("openai-agents==0.24.0", "openai[realtime]==3.54.0", "attrs"),
    "livekit": ("livekit-agents==1.8.9", "attrs"),
}


def python(environment: str | None) -> str:
    """Return the interpreter of an environment, made when it is first asked for; None is our own."""
    if environment is None:
        return sys.executable
    requirements = ENVIRONMENTS[environment]
    home = FOLDER / environment
    wanted = hashlib.sha256(repr((sys.version, requirements)).encode()).hexdigest()
    mark = home / "made"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"making {home.relative_to(ROOT)} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *requirements], check=True)
        mark.write_text(wanted)
    return str(home / "bin" / "python")

"""How much memory this process uses."""

from __future__ import annotations

import os
import resource
import sys


def resident() -> int:
    """Return the bytes of memory that are resident; where the system does not tell, the most there ever were."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

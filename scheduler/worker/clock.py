"""The clock of a queue that lives on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from attrs import field, frozen


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        # Elsewhere the moment of the boot tells one from the next, to the hour: the wall clock may be corrected.
        return f"{(time.time() - time.monotonic()) / 3600:.0f}"


@frozen(kw_only=True)
class MachineClock:
    """Two clocks which all processes of a machine share.

    `wall` is for what people say (`not_before`) and read. Leases run on `steady`, which nobody can set: a corrected
    wall clock ends no lease early and lets none run on. It begins anew with each `boot`, and no lease outlives that.
    """

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    boot: str = field(factory=_boot)

"""The order in which trio runs tasks that are ready at the same time: at random by its design, here by a seed."""

from __future__ import annotations

import trio._core._run as trio_run


def repeat(seed: int) -> None:
    """Schedule tasks the same way each time. What sockets, threads and the true clock do is another matter."""
    if not trio_run._ALLOW_DETERMINISTIC_SCHEDULING:
        trio_run._hypothesis_plugin_setup()  # trio's switch for those who test with it
    trio_run._r.seed(seed)

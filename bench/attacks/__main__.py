"""One attacker: `python -m bench.attacks NAME`, with the aim as a line of JSON on stdin.

Says `ready` and attacks until stdin ends, so it never outlives who started it. Then prints what it did, as JSON. It
yields the processor to the others (`nice`): measured is what the gateway does to itself, not that all are busy.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import trio

from bench.attacks.attack import Aim
from bench.attacks.every import ATTACKS
from bench.attacks.wire import counts

NICE = 10


async def main(name: str, aim: Aim) -> None:
    """Attack until told to stop."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ATTACKS[name].run, aim)
        async for _ in trio.lowlevel.FdStream(os.dup(0)):
            pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    os.nice(NICE)
    aim = Aim.from_json(os.read(0, 65536).decode())
    print("ready", flush=True)
    trio.run(main, sys.argv[1], aim)
    print(json.dumps(counts))

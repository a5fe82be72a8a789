"""One example: a fresh gateway on a clock of its own, something said to it, and whether it is still well.

Well means: no task of it has crashed and nothing was logged as an error, no key stands in anything that was answered
or logged, nobody is connected any more, nothing is in flight upstream, and an honest request is answered.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import trio
import trio.testing

from pool.emulator import EmulatorSettings
from scheduler.gateway.keys import VirtualKey, digest_of
from scheduler.gateway.settings import GatewaySettings
from tests.gateway.stage import Stage, staged
from tests.support.order import repeat

KEY = "wl-fuzzed-0123456789-abcdef"
OTHER = "wl-another-9876543210-fedcba"  # that nobody sends
KEYS = [VirtualKey(name="fuzzed", digest=digest_of(KEY)), VirtualKey(name="other", digest=digest_of(OTHER))]
PATIENCE = 900.0  # s on trio's clock: longer than any timeout of the gateway
HONEST = (
    b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer %b\r\n\r\n"
    % KEY.encode()
)
T = TypeVar("T")
Handle = Callable[[trio.abc.Stream], Awaitable[object]]


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter())
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.records.append(record)


@contextmanager
def logged() -> Iterator[Kept]:
    """Keep everything that the project logs while the block runs."""
    log, kept = logging.getLogger("warmline"), Kept()
    before, propagates = log.level, log.propagate
    log.addHandler(kept)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield kept
    finally:
        log.removeHandler(kept)
        log.setLevel(before)
        log.propagate = propagates


def tried(scenario: Callable[[Stage], Awaitable[T]]) -> T:
    """Run a scenario against a gateway, and return what it returns if the gateway is well afterwards."""

    async def main() -> T:
        settings = GatewaySettings(
            max_head=4096, max_body=65536, max_message=65536, max_waiting=65536, client_connections=4
        )
        script = EmulatorSettings(default_script="calls=0 output_tokens=2 deltas=2")
        async with staged(script, policy="virtual", keys=KEYS, settings=settings) as stage:
            result = await scenario(stage)
            assert (await said(stage.gateway.handle, [HONEST])).count(b"HTTP/1.1 200 ") == 2
            await trio.testing.wait_all_tasks_blocked()
            stage.assert_quiet()
            return result

    with logged() as kept:
        repeat(0)
        result = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    for record in kept.records:
        text = kept.format(record)
        assert record.levelno < logging.ERROR, text
        assert no_key(text.encode(errors="replace")), text
    return result


def no_key(text: bytes) -> bool:
    """Whether this holds none of the keys, nor the larger part of one."""
    return not any(key.encode()[3:-3] in text for key in (KEY, OTHER))


async def said(
    handle: Handle, pieces: Sequence[bytes], *, hangs_up: bool = False, patience: float = PATIENCE
) -> bytes:
    """Say this to a server piece by piece, each read for itself; return all that it says until it hangs up.

    `hangs_up`: say at the end that no more comes; the server may still answer. It has to hang up within `patience`.
    """
    near, far = trio.testing.memory_stream_pair()
    heard = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle, far)

        async def speak() -> None:
            try:
                for piece in pieces:
                    await near.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked()
                if hangs_up:
                    await near.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await trio.lowlevel.checkpoint()

        nursery.start_soon(speak)
        with trio.fail_after(patience):
            while data := await near.receive_some(65536):
                heard += data
        await near.aclose()
    answer = bytes(heard)
    assert no_key(answer), answer
    return answer

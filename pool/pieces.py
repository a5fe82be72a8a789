"""A request body that is sent in pieces, so that a long one is never joined, nor encrypted in one go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import trio
from attrs import define, field

PIECE = 256 * 1024  # bytes


@define(eq=False)
class Pieces:
    """A body given by its parts."""

    parts: Sequence[bytes] = field(repr=False)
    size: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.size = sum(map(len, self.parts))

    def whole(self) -> bytes:
        """Return it joined."""
        return b"".join(self.parts)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """Give it piece by piece."""
        piece = bytearray()
        for part in self.parts:
            for start in range(0, len(part), PIECE):
                piece += part if len(part) <= PIECE else memoryview(part)[start : start + PIECE]
                if len(piece) >= PIECE:
                    await trio.lowlevel.checkpoint()
                    yield bytes(piece)
                    piece = bytearray()
        await trio.lowlevel.checkpoint()
        yield bytes(piece)

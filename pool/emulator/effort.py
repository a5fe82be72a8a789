"""How much work the emulator does for what a client asks of it, counted in steps: it is the same each time."""

from __future__ import annotations

from attrs import define


class Exhausted(Exception):
    """The work is given up: what was asked takes too many steps."""


@define
class Effort:
    """Steps that are left."""

    left: int

    def spend(self, steps: int = 1) -> None:
        """Count some steps. Raises `Exhausted`."""
        self.left -= steps
        if self.left < 0:
            raise Exhausted

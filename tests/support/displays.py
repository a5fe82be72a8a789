"""A display that remembers what it was told."""

from __future__ import annotations

from attrs import define, field

from scheduler.fleet.progress import Progress


@define(eq=False)
class FakeDisplay:
    interval: float = 1.0
    said: list[str] = field(factory=list)
    moments: list[Progress] = field(factory=list)
    closed: bool = False

    def update(self, progress: Progress) -> None:
        self.moments.append(progress)

    def say(self, line: str) -> None:
        self.said.append(line)

    def close(self) -> None:
        self.closed = True

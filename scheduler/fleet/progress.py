"""How far a fleet is: one frozen value, and the words for it. Pure; `display` shows them."""

from __future__ import annotations

from attrs import frozen

from scheduler.fleet.report import count, percent, plural


@frozen(kw_only=True)
class Progress:
    """One moment of a running fleet. `elapsed` in seconds; `hot` counts the turns that travelled as deltas."""

    total: int
    ended: int = 0
    failed: int = 0
    running: int = 0
    turns: int = 0
    hot: int = 0
    elapsed: float = 0.0
    note: str = ""  # what the fleet does beside running, e.g. stopping

    @property
    def rate(self) -> float:
        """Turns a second, since the start."""
        return self.turns / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds until the last run has probably ended; None while too little is known."""
        if not self.ended or self.elapsed <= 0:
            return None
        return (self.total - self.ended) * self.elapsed / self.ended

    @property
    def eta(self) -> str:
        """The same as minutes and seconds."""
        if self.remaining is None:
            return "-:--"
        minutes, seconds = divmod(round(self.remaining), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

    def facts(self) -> str:
        """Return what fits beside a bar."""
        parts = [
            f"{self.rate:.1f} turns/s",
            f"{percent(self.hot, self.turns)} hot",
            f"{count(self.running)} running",
        ]
        if self.failed:
            parts.append(f"{count(self.failed)} failed")
        return ", ".join(parts)

    def to_line(self) -> str:
        """Return the whole as one plain line."""
        parts = [f"{count(self.ended)}/{count(self.total)} runs"]
        if self.failed:
            parts.append(f"{count(self.failed)} failed")
        parts += [
            f"{count(self.running)} running",
            f"{plural(self.turns, 'turn')} ({self.rate:.1f}/s)",
            f"{percent(self.hot, self.turns)} hot",
        ]
        if self.remaining is not None and self.ended < self.total:
            parts.append(f"{self.eta} left")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)

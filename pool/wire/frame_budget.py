"""How many frames a peer may send that carry little or nothing: a token bucket. Pure.

Theory of operation
    Every frame costs the reader a little, whatever it carries; a frame of six bytes costs as much as one of a
    kilobyte. A message in one frame pays for itself: it is what the connection is for, and its number is bounded by
    those who answer it. What could go on for ever without a message are control frames (pings, pongs) and fragments,
    empty ones above all, which no bound of a message's size ever counts.

    So each control frame and each fragment takes a token, and its payload gives some back: one for `FREE` bytes. A
    message in fragments of `FREE` bytes or more is never slowed or refused, whatever its size and speed; smaller
    ones live on what is refilled by the second and on what has been saved up.
"""

from __future__ import annotations

from attrs import define, field

FREE = 64  # bytes of payload that pay for the frame that brings them
RATE, BURST = 500.0, 5000  # frames a second, and frames saved up


@define(eq=False)
class FrameBudget:
    """The tokens of one connection; `now` is in seconds on one clock of the caller's."""

    rate: float = RATE
    burst: float = BURST
    _tokens: float = field(init=False)
    _filled_at: float | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._tokens = float(self.burst)

    def take(self, now: float, payload: int = 0) -> bool:
        """Pay for a frame with so many bytes of payload; False: there is nothing left to pay with."""
        if self._filled_at is not None:
            self._tokens += (now - self._filled_at) * self.rate
        self._filled_at = now
        self._tokens = min(self.burst, self._tokens + payload / FREE) - 1
        return self._tokens >= 0

    def owed(self, now: float, frames: int) -> float:
        """Take tokens for frames that nobody refuses; return the seconds to wait until they are refilled."""
        self.take(now, (1 - frames) * FREE)
        return max(0.0, -self._tokens / self.rate)

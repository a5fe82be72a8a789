"""Which way a turn goes: over a socket, or over HTTP. Pure.

Theory of operation
    A socket is the rule: once it is open, each turn on it saves the HTTP request's overhead and, unless responses
    are stored, the replay of everything said so far. Only opening it costs something. So a turn goes over HTTP

        http:setting    because the settings say so
        http:oversize   because no socket takes a message of its size
        http:fallback   because the sockets are down (the breaker over the dials is not closed) and none is open
        http:short      because a socket would have to be dialled for it, and its run is expected to end within
                        `SHORT` turns, too soon to earn that back

    and in no other case: not when its lane is hot, not when an idle lane is at hand, and not to escape a queue. How
    long runs last is learned from those that have ended. Before anything is known they are taken for long ones, and
    it takes about two dozen short runs to be convinced of the opposite.
"""

from __future__ import annotations

from typing import Literal

from attrs import define, field, frozen

TransportSetting = Literal["auto", "websocket", "http"]

KEEP = 0.98  # of the weight of every run seen, at each new one: a memory of about 50
PRIOR_RUNS, PRIOR_TURNS = 4.0, 20  # before any run has ended: as if so many had, after so many turns
# s, what a turn over HTTP takes longer than on an open socket. OpenAI's WebSocket guide: up to 40 % for rollouts of
# 20 and more tool calls, most of it the replay, which is counted apart.
PRIOR_OVERHEAD = 0.08
SHORT = 4.0  # turns; who is expected to take more gets a socket, whatever the costs seem to be
PRIOR_DIAL = 0.3  # s; TCP, TLS and the upgrade to a host of another continent


@frozen(kw_only=True)
class View:
    """What is known when a turn is about to be placed. Times are in seconds, sizes in bytes."""

    size: int = 0  # of the message, as a socket would have to carry it
    frame_cap: int = 1 << 24
    hot: bool = False  # its own lane is idle and remembers it
    idle: bool = False  # a lane is idle that nobody waits for
    open: bool = True  # a connection is open
    growing: bool = False  # a lane would come from a dial
    broken: bool = False  # dials keep failing
    dial: float = PRIOR_DIAL
    overhead: float = PRIOR_OVERHEAD  # of one turn over HTTP
    replay: float = 0.0  # what the conversation's replay costs more than its delta
    turns_left: float = float(PRIOR_TURNS)  # with the one at hand

    @property
    def over_http(self) -> float:
        """What the rest of the run is expected to take longer over HTTP than on an open socket."""
        return self.turns_left * self.overhead + (self.turns_left - 1) * self.replay

    @property
    def weighed(self) -> bool:
        """A socket would have to be dialled, so that it is a question of costs."""
        return self.growing and not (self.hot or self.idle)


def choose(setting: TransportSetting, view: View) -> str | None:
    """Return why the turn goes over HTTP; None when it goes over a socket."""
    if setting != "auto":
        return "http:setting" if setting == "http" else None
    if view.size > view.frame_cap:
        return "http:oversize"
    if view.hot or view.idle:
        return None
    if view.broken and not view.open:
        return "http:fallback"
    short = view.turns_left <= SHORT and view.over_http < view.dial
    return "http:short" if view.weighed and short else None


@define(eq=False)
class RunLengths:
    """How many turns runs take, learned from those that have ended, and slowly forgotten."""

    _ended: dict[int, float] = field(factory=lambda: {PRIOR_TURNS: PRIOR_RUNS}, init=False)  # weight by turns

    def finished(self, turns: int) -> None:
        """A run has ended after so many turns."""
        if turns > 0:
            self._ended = {length: weight * KEEP for length, weight in self._ended.items() if weight > 1e-3}
            self._ended[turns] = self._ended.get(turns, 0.0) + 1.0

    def left(self, done: int) -> float:
        """Return how many more turns a run is expected to take that has taken `done`; at least 1."""
        longer = {length: weight for length, weight in self._ended.items() if length > done}
        if not longer:  # longer than any: who has come so far goes on about as long again
            return float(max(1, done))
        return sum((length - done) * weight for length, weight in longer.items()) / sum(longer.values())

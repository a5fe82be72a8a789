"""What an emulator served, as plain counts."""

from __future__ import annotations

from attrs import define


@define
class EmulatorStats:
    """Counts since the emulator was made; read them, do not write them."""

    connections: int = 0  # WebSocket connections that were accepted
    open_connections: int = 0
    refused_connections: int = 0  # upgrades
    http_requests: int = 0
    responses: int = 0  # that began
    completed: int = 0  # with a terminal event that is not a failure
    failed: int = 0
    refused: int = 0  # creates that were answered by an error
    abandoned: int = 0  # generations that the client's leaving cut short
    deltas: int = 0  # continuations of a response that the connection remembered
    hydrations: int = 0  # continuations of a stored response
    replays: int = 0  # contexts sent whole
    warm_ups: int = 0  # `generate: false`
    forks: int = 0  # continuations on another lane than the parent's
    evictions: int = 0
    limit_closes: int = 0  # connections that reached their age
    bytes_in: int = 0  # messages and HTTP bodies
    bytes_out: int = 0
    most_in_flight: int = 0  # on one connection
    most_waiting: int = 0  # on one connection
    longest_connection: float = 0.0  # seconds, of those that have ended
    crashes: int = 0  # connections that an unexpected error ended

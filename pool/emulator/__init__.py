"""A Responses server for tests, demos and benchmarks: WebSocket and HTTP on one port, and a scripted model."""

from pool.emulator.digest import context_digest
from pool.emulator.emulator import Emulator
from pool.emulator.faults import Fault, Kind, parse_faults
from pool.emulator.latency import Latency
from pool.emulator.server import RunningEmulator, serve_emulator
from pool.emulator.settings import EmulatorSettings
from pool.emulator.stats import EmulatorStats

__all__ = [
    "Emulator",
    "EmulatorSettings",
    "EmulatorStats",
    "Fault",
    "Kind",
    "Latency",
    "RunningEmulator",
    "context_digest",
    "parse_faults",
    "serve_emulator",
]

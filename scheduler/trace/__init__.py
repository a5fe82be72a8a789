"""Seeing the wire: record what passes, read it again, and make something of it."""

from scheduler.trace.tracer import open_trace

__all__ = ["open_trace"]

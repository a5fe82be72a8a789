"""A live page over a scheduler's statistics: see docs/dashboard.md."""

from scheduler.dashboard.server import Serving, serve

__all__ = ["Serving", "serve"]

"""A live page over a scheduler's statistics: see docs/dashboard.md. `open_telemetry` serves it."""

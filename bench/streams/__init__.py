"""Reading many streams at once, once for each way to do it; each a program of its own, started by `bench.events`."""

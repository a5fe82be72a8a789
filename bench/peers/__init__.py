"""The same tool loop, once for each way to run it. Each is a program of its own, started by `bench.turn`."""

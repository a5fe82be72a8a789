"""A batch of runs: tasks in, one result each out, and what happened in between."""

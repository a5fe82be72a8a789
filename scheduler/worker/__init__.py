"""Workers behind a job queue: agent runs that outlive the process they began in."""

"""`python -m scheduler` is `warmline`."""

from scheduler.cli import main

main()

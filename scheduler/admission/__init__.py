"""Admission and fairness: which run may start, whose turn goes next, and how many at a time."""

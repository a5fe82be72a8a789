"""Conversations and runs: who speaks on which lane, and when."""

"""The benchmarks run. What they measure is not looked at: a test that judges times fails on a busy machine."""

from __future__ import annotations

import re
import subprocess
import sys

from bench.machine import ROOT
from bench.tools import PAGE
from bench.turn import INSTRUCTIONS, PEERS


def run(*arguments: str) -> str:
    argv = [sys.executable, "-m", *arguments]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, timeout=120).stdout


def test_every_peer_plays_the_loop() -> None:
    printed = run("bench.turn", "--runs", "2", "--turns", "3", "--repeat", "1", "--laps", "1")
    for name in PEERS.values():
        assert re.search(rf"{re.escape(name)} +\d+ ", printed)
    assert len(re.findall(r"target at (?:most|least) .*: (?:met|MISSED)", printed)) == 3


def test_the_loop_has_the_sizes_that_were_agreed() -> None:
    assert len(INSTRUCTIONS) == 10 * 1024
    assert len(PAGE) == 2048


def test_idle_sockets_are_counted() -> None:
    printed = run("bench.idle", "--sockets", "8", "--watch", "0.1")
    assert "8 sockets open" in printed
    assert "0 pings" in printed

"""The benchmarks run. What they measure is not looked at: a test that judges times fails on a busy machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import pytest
from attrs import evolve

from bench.compare import PEERS, Target, ratios, table
from bench.machine import ROOT
from bench.server import emulator
from bench.tools import PAGE
from bench.turn import INSTRUCTIONS, loop


def run(*arguments: str, given: str = "") -> str:
    argv = [sys.executable, "-m", *arguments]
    return subprocess.run(
        argv, input=given, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, timeout=120
    ).stdout


def test_a_turn_is_compared_and_its_bytes_are_counted() -> None:
    printed = run(
        "bench.turn",
        "--runs",
        "20",
        "--turns",
        "20",  # the loop that the targets are for
        "--repeat",
        "1",
        "--laps",
        "1",
        "--peers",
        "warmline,bare",
    )
    for peer in ("warmline", "bare"):
        assert re.search(
            rf"{re.escape(PEERS[peer].title)} +\|( +[\d.]+ \([\d.]+ to [\d.]+\) \|){{3}}", printed
        )
    assert re.search(r"target: warmline / bare at most 1.2: [\d.]+, (met|MISSED)", printed)


# Here all of them live in one environment; `bench.environments` gives each its own.
@pytest.mark.parametrize("peer", ["sdk_socket", "sdk_lanes", "sdk_http", "sdk_stored", "agents"])
def test_every_peer_plays_the_loop(peer: str) -> None:
    with emulator() as url:
        job = evolve(loop(url, turns=3, deltas=3), runs=2)
        (lap,) = json.loads(run(f"bench.peers.{peer}", given=job.to_json()))
    assert len(lap["turns"]) == 6
    assert len(lap["runs"]) == 2
    assert lap["cpu"] > 0
    assert max(lap["turns"]) <= max(lap["runs"]) <= lap["wall"]


def test_the_loop_has_the_sizes_that_were_agreed() -> None:
    assert len(INSTRUCTIONS) == 10 * 1024
    assert len(PAGE) == 2048


def test_idle_sockets_are_counted() -> None:
    printed = run("bench.idle", "--sockets", "8", "--watch", "0.1")
    assert "8 sockets open" in printed
    assert "0 pings" in printed


def test_a_ratio_is_that_of_neighbours_in_time() -> None:
    # The machine was twice as slow in the second round: for both.
    assert f"{ratios([10.0, 20.0], [5.0, 10.0]):.1f}" == "2.0 (2.0 to 2.0)"


def test_a_target_says_whether_it_is_met() -> None:
    assert str(Target("x", 1.1, 1.2)) == "target: x at most 1.2: 1.1, met"
    assert str(Target("x", 8.0, 9.0, at_most=False)) == "target: x at least 9: 8, MISSED"


def test_a_table_is_markdown() -> None:
    assert table(["peer", "µs"], [["a", "1"], ["bb", "22"]]).splitlines() == [
        "| peer | µs |",
        "|------|---:|",
        "| a    |  1 |",
        "| bb   | 22 |",
    ]


def test_simulating_is_measured() -> None:
    printed = run("bench.simulation", "--turns", "500")
    assert re.search(r"target: CPU seconds for a million turns at most 60: [\d.]+, (met|MISSED)", printed)


def test_recording_a_turn_is_measured() -> None:
    printed = run("bench.recording", "--laps", "1", "--turns", "3")
    assert re.search(r"\| recording it +\|.*\|", printed)
    assert re.search(r"target: recording / turn at most 0.02: [\d.]+, (met|MISSED)", printed)


def test_attacks_are_measured() -> None:
    # Over TLS, with another policy, on the other listener, on a WebSocket; whether the gateway stands it or not.
    names = ("garbage-tls", "held-bodies-forward", "odd-queries", "pings")
    chosen = [word for name in names for word in ("--attack", name)]
    printed = run("bench.hostile", *chosen, "--seconds", "1", "--streams", "4")
    for name in names:
        assert re.search(rf"\| {name} +\|.* → .* → .* → ", printed), printed
        assert re.search(rf"target: {name}: crashes at most 0: \d+, (met|MISSED)", printed)
        assert re.search(rf"target: {name}: /healthz p99 at most 50 ms: [\d.e+]+ ms, (met|MISSED)", printed)
        (did,) = re.findall(rf"^{name}: .* Did: (.*)\.$", printed, re.MULTILINE)
        assert re.search(r"[1-9][\d,]* connections", did), did
    assert "target: odd-queries: metrics port p99" in printed
    assert "its log holds a key" not in printed


def test_an_attack_that_is_unknown_is_refused() -> None:
    argv = [sys.executable, "-m", "bench.hostile", "--attack", "nothing"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 2
    assert "no such attack: nothing" in done.stderr


def test_nothing_is_left_when_attacking_is_interrupted() -> None:
    argv = [sys.executable, "-m", "bench.hostile", "--attack", "churn", "--seconds", "10"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while len(_session(process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)  # until emulator, gateway and attacker have been started
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert "interrupted" in said, said
    deadline = time.monotonic() + 10
    while (left := _session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)  # an attacker that was just being started ends by itself, when its stdin does
    assert left == [], said


def _session(leader: int) -> list[int]:
    """Return the other processes of a session."""
    told = subprocess.run(["ps", "-eo", "pid=,sid="], capture_output=True, text=True, check=True).stdout
    pairs = (map(int, line.split()) for line in told.splitlines())
    return [pid for pid, session in pairs if session == leader and pid != leader]

"""The command as a person starts it: its own process, real sockets, real signals, pipes and terminals."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pool.wire.codec import from_json

ROOT = Path(__file__).parents[2]
WARMLINE = [sys.executable, "-m", "scheduler"]
DEMO = ["--agent", "examples/files.py:agent"]
ENVIRONMENT = {
    **{
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "WARMLINE_", "FILES_"))
    },
    "TERM": "xterm-256color",
    "COLUMNS": "80",
    "PYTHONUNBUFFERED": "1",
}


def warmline(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WARMLINE, *map(str, args)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@contextmanager
def started(*args: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    command = [*WARMLINE, *map(str, args)]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, text=True, bufsize=1, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """Yield the URL of a `warmline emulate` that wants a key."""
    with started(
        *["emulate", "--listen", "127.0.0.1:0", "--api-key", "right"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        yield found[0]
        process.terminate()
        process.communicate(timeout=10)


def results(path: Path) -> dict[str, Any]:
    return {line["id"]: line for line in map(from_json, path.read_bytes().splitlines())}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_the_demonstration(out: Path) -> None:
    ran = warmline(
        *["run", "examples/tasks.jsonl", *DEMO, "--endpoint", "emulator", "--out", out, "--json"],
        *["--emulator-latency", "none", "--emulator-script", "calls=2"],
    )
    assert ran.returncode == 0, ran.stderr
    value = from_json(ran.stdout)
    total = len((ROOT / "examples/tasks.jsonl").read_text().splitlines())
    assert total >= 100
    assert value["runs"]["total"] == value["runs"]["completed"] == len(results(out)) == total
    assert value["turns"] == 3 * total
    assert value["tools"]["executed"] == 2 * total
    # The model picks words from what it is shown, so with some states of this repository it asks for no file.
    assert value["tools"]["failed"] <= total // 10
    assert value["placements"]["hot"] >= total
    assert value["bytes"]["saved"] > 0
    assert "\x1b" not in ran.stderr


def test_on_a_terminal_there_is_a_bar_and_then_the_report(out: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(f'"task {number}"\n' for number in range(8)))
    ours, theirs = pty.openpty()
    arguments = ["run", tasks, *DEMO, "--endpoint", "emulator", "--out", out, "--emulator-script", "calls=2"]
    with started(*arguments, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
        assert process.wait(10) == 0
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "turns/s" in text
    assert re.search(r"\d/8 ", text)
    assert "8 runs on emulator" in text
    assert max(len(line) for line in re.split(r"[\r\n]+", text.split("8 runs on")[1])) <= 80 + len(str(out))
    assert shown.rstrip().endswith(str(out).encode())


def wait_until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Look again and again: what another process does gives no notice here."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        select.select([], [], [], 0.01)


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def interrupt_midway(out: Path, *more: str, presses: int) -> tuple[int, str, str]:
    """Start the demonstration, and press Ctrl-C (again) when it has a result (has said that it stops)."""
    arguments = ["run", "examples/tasks.jsonl", *DEMO, "--endpoint", "emulator", "--concurrency", "4", *more]
    before = lines_in(out)
    with started(*arguments, "--out", out, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = ""
        wait_until(lambda: lines_in(out) > before or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        if presses == 2:
            for line in process.stderr:
                said += line
                if "stopping" in line:
                    process.send_signal(signal.SIGINT)
                    break
        stdout, stderr = process.communicate(timeout=30)
    return process.returncode, stdout, said + stderr


def test_ctrl_c_keeps_what_is_done_and_resume_does_the_rest(out: Path) -> None:
    slow = ("--emulator-latency", "base=0.05", "--emulator-script", "calls=3")
    status, stdout, stderr = interrupt_midway(out, *slow, "--json", presses=1)
    assert status == 130
    assert "stopping: " in stderr
    assert "Traceback" not in stderr
    value = from_json(stdout)
    done = value["runs"]["completed"]
    assert value["interrupted"]
    assert 1 <= done < value["runs"]["total"]
    assert value["runs"]["not_started"] == value["runs"]["total"] - done
    assert len(results(out)) == done

    status, stdout, stderr = interrupt_midway(out, *slow, "--resume", presses=2)
    assert status == 130
    assert "cancelling now" in stderr or "not started" in stdout
    kept = {id_ for id_, line in results(out).items() if line["outcome"] == "completed"}
    assert len(kept) >= done

    ran = warmline(
        *["run", "examples/tasks.jsonl", *DEMO, "--endpoint", "emulator", "--out", out, "--resume", "--json"],
        *["--emulator-latency", "none", "--emulator-script", "calls=1"],
    )
    assert ran.returncode == 0, ran.stderr
    assert from_json(ran.stdout)["runs"]["skipped"] == len(kept)
    assert {line["outcome"] for line in results(out).values()} == {"completed"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks for child processes in /proc")
def test_a_kill_loses_no_finished_run_and_leaves_no_emulator(out: Path) -> None:
    arguments = ["run", "examples/tasks.jsonl", *DEMO, "--endpoint", "emulator", "--out", out]
    with started(*arguments, "--emulator-script", "calls=1", stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: lines_in(out) > 0)
        threads = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [child for thread in threads for child in thread.read_text().split()]
        process.kill()
        process.wait(10)
    assert children
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert all(line["outcome"] == "completed" for line in results(out).values())


def test_a_wrong_key_is_one_line(guarded: str, out: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("wrong\n")
    key.chmod(0o600)
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('"one"\n"two"\n')
    arguments = ["run", tasks, *DEMO, "--url", guarded, "--key-file", key, "--out", out]
    ran = warmline(*arguments)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("warmline: error: ")
    assert ran.stderr.count("\n") == 1
    assert "401" in ran.stderr
    assert "wrong" not in ran.stderr.replace("a wrong key", "")
    assert not out.exists()
    key.write_text("right\n")
    assert warmline(*arguments, "--quiet").returncode == 0
    assert len(results(out)) == 2


def test_a_reader_that_leaves_is_no_error() -> None:
    with started("run", "--help", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(10)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1

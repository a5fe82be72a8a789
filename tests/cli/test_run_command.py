"""`warmline run`, called in this process: what it prints, what it leaves, with which status it ends."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from attrs import frozen

from pool.wire.codec import from_json
from scheduler import cli
from scheduler.agent import Agent
from scheduler.commands import failures
from scheduler.commands.embedded import EmbeddedSettings, EmulatorFailed, embedded_emulator, serve
from scheduler.errors import FleetHalted
from tests.support.emulated import emulated

AGENT = """
from scheduler import Agent, tool

@tool(inline=True)
def look(where: str) -> str:
    "Look."
    return f"seen {where}"

agent = Agent(model="gpt-test", tools=[look])
"""


@frozen
class Ran:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return from_json(self.out)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with emulated() as url:
        yield url


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("WARMLINE_DEBUG", raising=False)
    (tmp_path / "mine.py").write_text(AGENT)
    (tmp_path / "tasks.jsonl").write_text('"one"\n{"id": "2", "input": "two"}\n')
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], url: str) -> Any:
    def call(*args: str, tasks: str = "tasks.jsonl", where: Sequence[str] = ("--url", url)) -> Ran:
        path = list(sys.path)
        status = cli.invoke(["run", tasks, "--agent", "mine.py:agent", *where, *args])
        sys.path[:] = path
        sys.modules.pop("warmline_agent_mine", None)
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return call


def results(path: str = "tasks.results.jsonl") -> dict[str, Any]:
    return {line["id"]: line for line in map(from_json, Path(path).read_bytes().splitlines())}


def test_a_fleet_and_its_report(run: Any) -> None:
    ran = run()
    assert ran.status == 0
    assert ran.err == ""
    assert "2 completed" in ran.out.splitlines()[0]
    assert "tasks.results.jsonl" in ran.out
    assert {line["outcome"] for line in results().values()} == {"completed"}
    assert results()["2"]["placements"] == ["replay:new", "hot", "hot"]


def test_the_summary_as_json(run: Any) -> None:
    ran = run("--json", "--out", "o.jsonl", "--concurrency", "1", "--model", "other", "--store")
    assert ran.status == 0
    value = ran.json
    assert value["runs"]["total"] == value["runs"]["completed"] == 2
    assert (value["turns"], value["tools"]["executed"], value["connections"]["opened"]) == (6, 4, 1)
    assert sum(value["placements"].values()) == 6
    assert (value["results"], value["error"], value["interrupted"]) == ("o.jsonl", None, False)
    assert value["endpoint"].startswith("127.0.0.1:")


def test_resuming_runs_what_is_missing(run: Any, folder: Path) -> None:
    assert run().status == 0
    with open("tasks.jsonl", "a") as file:
        file.write('"three"\n')
    refused = run()
    assert (refused.status, refused.out) == (2, "")
    assert "already there" in refused.err
    out = folder / "tasks.results.jsonl"
    out.write_bytes(out.read_bytes()[:-10])
    ran = run("--resume", "--json")
    assert ran.status == 0
    assert "the last line was torn; it was mended" in ran.err
    assert "resuming: 1 of 3 tasks are completed" in ran.err
    assert (ran.json["runs"]["skipped"], ran.json["runs"]["completed"]) == (1, 2)
    assert len(results()) == 3
    again = run(
        "--resume", where=("--endpoint", "emulator")
    )  # nothing to do: no emulator is started for that
    assert (again.status, again.out.splitlines()[0]) == (0, "3 runs on emulator in 0 ms: 0 completed")
    assert run("--overwrite", "--json").json["runs"]["completed"] == 3


def test_failed_runs_are_shown_and_counted(run: Any, folder: Path) -> None:
    lines = [
        f'{{"id": "bad{number}", "input": "x", "metadata": {{"emulator": "nonsense"}}}}'
        for number in range(7)
    ]
    (folder / "tasks.jsonl").write_text("\n".join([*lines, '"good"']))
    ran = run("--json")
    assert ran.status == 1
    assert (ran.json["runs"]["completed"], ran.json["runs"]["failed"]) == (1, 7)
    assert ran.err.count(" failed: ResponseFailed: ") == 5
    assert ran.err.count("further failures stand in the results only") == 1
    assert results()["bad1"]["error"]["type"] == "ResponseFailed"
    mended = run("--resume", "--json")
    assert (mended.json["runs"]["skipped"], mended.json["runs"]["failed"]) == (1, 7)


def test_tasks_from_standard_input(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"one"\n')))
    assert run(tasks="-").status == 0
    assert len(results("results.jsonl")) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--resume", "--overwrite"), "--resume and --overwrite exclude each other."),
        (
            ("--out", "tasks.jsonl", "--overwrite"),
            "tasks.jsonl: this is the tasks file; name another one with --out",
        ),
        (
            ("--out", "missing/o.jsonl"),
            "missing/o.jsonl: cannot be written: No such file or directory; make the",
        ),
        (("--agent", "mine.py:agnt"), "agent 'mine.py:agnt': no 'agnt' in mine.py; there is mine.py:agent"),
        (("--connections", "0"), "Invalid value for '--connections'"),
        (("--grace", "nan"), "Invalid value for '--grace'"),
        (
            ("--emulator-seed", "3"),
            "--emulator-seed is for the emulator that `--endpoint emulator` without --url",
        ),
        (("--frobnicate",), "No such option"),
        (("--url", "ftp://host"), "url = 'ftp://host': must look like https://host/v1"),
        (("--key-file", "nothing"), "key file = 'nothing': cannot be read"),
    ],
)
def test_bad_usage_is_one_line_before_anything_runs(run: Any, args: tuple[str, ...], words: str) -> None:
    ran = run(*args)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"warmline: error: {words}")
    assert ran.err.count("\n") == 1
    assert not Path("tasks.results.jsonl").exists()


def test_a_missing_key_names_the_way_without_one(run: Any) -> None:
    ran = run(where=())
    assert (ran.status, ran.out) == (2, "")
    assert "OPENAI_API_KEY" in ran.err
    assert "--endpoint emulator" in ran.err
    assert ran.err.count("\n") == 1


def test_a_malformed_line_is_named(run: Any, folder: Path) -> None:
    (folder / "tasks.jsonl").write_text('"one"\n{"input": \n')
    ran = run()
    assert ran.status == 2
    assert ran.err.startswith("warmline: error: tasks.jsonl:2: not valid JSON: ")
    assert not Path("tasks.results.jsonl").exists()


def test_nobody_there_is_one_line_and_nothing_lost(run: Any) -> None:
    assert run().status == 0
    before = results()
    ran = run("--overwrite", where=("--url", "http://127.0.0.1:9/v1"))
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("warmline: error: cannot reach ws://127.0.0.1:9/v1/responses")
    assert "check the URL" in ran.err
    assert ran.err.count("\n") == 1
    assert results() == before
    as_json = run("--overwrite", "--json", where=("--url", "http://127.0.0.1:9/v1"))
    assert as_json.json["error"].startswith("cannot reach")
    assert as_json.json["runs"]["not_started"] == 2


def test_a_full_disk_stops_it_and_keeps_what_is_done(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from scheduler.errors import OutputFileError
    from scheduler.fleet.journal import Journal

    real = Journal.append

    def append(self: Journal, result: Any) -> None:
        if self.written:
            raise OutputFileError(self.path, "cannot be written: No space left on device")
        real(self, result)

    monkeypatch.setattr(Journal, "append", append)
    ran = run("--concurrency", "1")
    assert ran.status == 1
    assert "1 completed" in ran.out
    assert "No space left on device" in ran.err
    assert len(results()) == 1


def test_single_lanes_get_a_connection_each(run: Any) -> None:
    assert run("--json", "--lanes", "single").json["connections"]["opened"] == 2
    assert (
        run("--json", "--overwrite", "--lanes", "single", "--connections", "1").json["connections"]["opened"]
        == 1
    )


def test_the_emulator_of_our_own_is_told_what_to_do(run: Any) -> None:
    ours = ("--endpoint", "emulator")
    ran = run("--emulator-script", "cals=3", where=ours)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "'cals=3' is no knob" in ran.err
    ran = run("--emulator-script", "calls=0", "--emulator-latency", "none", "--json", where=ours)
    assert (ran.status, ran.json["turns"], ran.json["endpoint"]) == (0, 2, "emulator")


def test_an_error_inside_shows_its_traceback_only_with_debug(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.commands.prepare.default_out", lambda tasks: 1 / 0)
    ran = run()
    assert ran.status == 1
    assert ran.err == (
        "warmline: error: ZeroDivisionError: division by zero "
        "(this is a bug in warmline; --debug shows the traceback)\n"
    )
    assert "Traceback" in run("--debug").err
    monkeypatch.setenv("WARMLINE_DEBUG", "1")
    assert "Traceback" in run().err


def invoke(capsys: pytest.CaptureFixture[str], *args: str) -> Ran:
    status = cli.invoke(list(args))
    captured = capsys.readouterr()
    return Ran(status, captured.out, captured.err)


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(capsys, "--version").out.startswith("warmline 0.")
    for command in ((), ("run",), ("emulate",)):
        ran = invoke(capsys, *command, "--help")
        assert ran.status == 0
        assert "Examples:" in ran.out
        assert max(map(len, ran.out.splitlines())) <= 80
    assert "run " in invoke(capsys, "--help").out
    bare = invoke(capsys)
    assert bare.status == 2
    assert "Examples:" in bare.err
    assert invoke(capsys, "frobnicate").err.startswith("warmline: error: No such command 'frobnicate'.")
    assert "Traceback" in invoke(capsys, "--debug", "run", "x", "--agent", "x:y", "--url", "http://h").err


def test_main_exits_with_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0


def test_the_end_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    explain = failures.explain
    assert explain(KeyboardInterrupt(), debug=True) == 130
    assert explain(click.Abort(), debug=False) == 130
    assert explain(SystemExit(7), debug=False) == 7
    assert explain(SystemExit("words"), debug=False) == 1
    assert explain(BaseExceptionGroup("g", [KeyboardInterrupt()]), debug=False) == 130
    assert explain(FleetHalted("401"), debug=False) == 1
    assert explain(FileNotFoundError(2, "No such file or directory", "x"), debug=False) == 1
    assert explain(OSError(28, "No space left on device"), debug=False) == 1
    said = capfd.readouterr().err.splitlines()
    assert said == [
        *["warmline: interrupted"] * 3,
        "warmline: error: 401; the fleet was stopped, --resume goes on once that is mended",
        "warmline: error: x: No such file or directory",
        "warmline: error: No space left on device",
    ]


def test_nothing_more_is_written_to_a_reader_that_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(tmp_path / "out", "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert failures.explain(BrokenPipeError(), debug=True) == 1
        file.write("lost")
    assert (tmp_path / "out").read_text() == ""
    assert capsys.readouterr().err == ""


async def test_the_embedded_emulator_lives_as_long_as_the_pipe() -> None:
    async with embedded_emulator(EmbeddedSettings()) as url:
        assert url.startswith("http://127.0.0.1:")
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_an_emulator_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.commands.embedded.END_TIMEOUT", 0)
    with trio.fail_after(10):
        async with embedded_emulator(EmbeddedSettings()) as url:
            assert url


async def test_an_emulator_that_does_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EmulatorFailed, match="did not start"):
        async with embedded_emulator(EmbeddedSettings()):
            pass


async def test_serving_begins_with_a_line_and_ends_with_the_pipe() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, theirs, theirs)
        await ours.send_all(b'{"script": "calls=1", "latency": "none",')
        await ours.send_all(b' "seed": 1}\n')
        assert (await ours.receive_some()).startswith(b"http://127.0.0.1:")
        await ours.send_eof()
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_eof()
    await serve(theirs, theirs)


@pytest.mark.parametrize(("transport", "over_http"), [("http", True), ("websocket", False)])
def test_the_transport_can_be_chosen(run: Any, transport: str, over_http: bool) -> None:
    ran = run("--transport", transport, "--json")
    assert ran.status == 0
    reasons = set(ran.json["placements"])
    assert (reasons == {"http:setting"}) == over_http
    assert (ran.json["connections"]["opened"] == 0) == over_http


def test_a_tenant_is_for_tasks_that_name_none(
    run: Any, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    seen: list[str | None] = []
    original = Agent.run

    async def watched(*args: Any, **options: Any) -> Any:
        seen.append(options["tenant"])
        return await original(*args, **options)

    monkeypatch.setattr(Agent, "run", watched)
    (folder / "tasks.jsonl").write_text('"one"\n{"input": "two", "tenant": "mine"}\n')
    assert run("--tenant", "batch").status == 0
    assert sorted(filter(None, seen)) == ["batch", "mine"]
    ran = run("--tenant", " ", "--overwrite")
    assert ran.status == 2
    assert "tenant" in ran.err

"""`warmline plan` as a user meets it: words, JSON, pages, and a clear sentence for every mistake."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from pool.wire.codec import from_json
from scheduler.cli import invoke
from tests.capacity.test_recorded import log, recorded

# Little to simulate: what is tested here is what is said
LOAD = ["--runs-per-hour", "900", "--turns", "4", "--turn-seconds", "exp(2)", "--lanes", "single"]
QUICK = ["--effort", "500", "--no-what-if", "--quiet"]


def test_it_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["plan", *LOAD, *QUICK]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.match(r"\d+ connections in one process\. ", out)
    assert "    PoolSettings(max_connections=" in out
    assert "assumed (--tool-seconds)" in out
    assert "assumed (--turns)" not in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    prices = ["--price-input", "1", "--price-output", "8"]
    assert invoke(["plan", *LOAD, *QUICK, *prices, "--tokens-per-minute", "2M", "--json"]) == 0
    plan: dict[str, Any] = from_json(capsys.readouterr().out)
    assert plan["connections"] >= 1
    assert plan["target"] == {"p99_wait": 0.05, "hot": 0.95, "met": True}
    assert plan["per_hour_all_processes"]["money"] > 0
    assert {limit["name"] for limit in plan["limits"]} >= {"in-flight", "lanes", "tokens per minute", "CPU"}
    assert [point["connections"] for point in plan["curve"]] == sorted(
        point["connections"] for point in plan["curve"]
    )


def test_a_recording_is_planned_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = log(tmp_path / "fleet.hlog", recorded())
    assert invoke(["plan", path, *QUICK, "--tool-seconds", "1s", "--endpoint", "xai"]) == 0
    out = capsys.readouterr().out
    assert "400 turns of 100 runs, recorded in 10 min" in " ".join(out.split())
    assert "seconds between turns: 1s, instead of what was recorded" in out
    assert "xai: 1 at a time on a connection, closed by the server after 25 min" in " ".join(out.split())
    assert invoke(["plan", path, *QUICK, "--concurrency", "6", "--lanes", "single", "--hot", "90%"]) == 0
    assert "6 runs at a time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing says how much is asked: name a recording"),
        ([*LOAD, "--concurrency", "3"], "--runs-per-hour and --concurrency exclude each other"),
        ([*LOAD, "--model", "gpt"], "--model picks from a recording"),
        ([*LOAD, "--hot", "150%"], "--hot = '150%': must be a share"),
        ([*LOAD, "--p99-wait", "soon"], "--p99-wait = 'soon': must be a time"),
        ([*LOAD, "--turns", "0"], "--turns = '0': must be at least 1"),
        ([*LOAD, "--tool-seconds", "uniform(5ms,1)"], "mixes numbers with a unit and without"),
        ([*LOAD, "--output-tokens", "5k"], "is part of --tokens-per-turn"),
        ([*LOAD, "--turn-seconds", "0", "--tool-seconds", "0", "--read-seconds", "0"], "takes no time"),
        ([*LOAD, "--losses-per-hour", "often"], "--losses-per-hour = 'often'"),
        ([*LOAD, "--price-output", "3"], "need --price-input"),
        ([*LOAD, "--price-input", "1", "--price-cached", "3"], "the wrong way round"),
        ([*LOAD, "--price-input", "nan"], "--price-input = nan"),
        (
            ["--runs-per-hour", "1G", "--lanes", "single", "--cpu-per-turn", "0"],
            "one process would need some",
        ),
        ([*LOAD, "--cap", "0"], "--cap = '0': must be above 0"),
        ([*LOAD, "--effort", "500", "--tokens-per-minute", "9k"], "tokens per minute bind first"),
        ([*LOAD, "--effort", "500", "--max-connections", "1"], "at most 1 connections do not reach this"),
        (["/nowhere/fleet.hlog"], "/nowhere/fleet.hlog: no such file"),
        ([*LOAD, "--report", "/nowhere/plan.html"], "its folder does not exist"),
        ([*LOAD, "--report", "/"], "is a folder"),
        ([*LOAD, "--png", __file__], "is a file; name a folder"),
        ([*LOAD, "--endpoint", "nobody"], "nobody"),
    ],
)
def test_a_mistake_is_one_sentence(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["plan", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert err.startswith("warmline: error: ")


def test_a_log_that_is_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, content, said in (
        ("empty", "", "is empty"),
        ("text", "hello\n", "not a histogram log"),
        ("torn", Path(log(tmp_path / "good", recorded())).read_text()[:900], "no interval in it is finished"),
    ):
        path = tmp_path / name
        path.write_text(content)
        assert invoke(["plan", str(path)]) == 2
        assert said in capsys.readouterr().err


def test_a_page_and_pictures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page, folder = tmp_path / "plan.html", tmp_path / "pictures"
    where = ["--report", str(page), "--png", str(folder)]
    assert invoke(["plan", *LOAD, "--effort", "500", "--quiet", *where]) == 0
    out, err = capsys.readouterr()
    assert f"warmline: wrote {page}" in err
    text = page.read_text()
    # It needs nothing else: no script, no network
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="(?!#)', text)
    assert not re.search(r"url\((?!#)", text)
    assert text.count("<svg") == 4
    assert "var(--blue)" in text
    assert "#0072b2" not in text.split("</style>", 1)[1].lower()
    assert "prefers-color-scheme: dark" in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert all(anchor in ids for anchor in re.findall(r"url\(#([^)]+)\)", text))
    assert all(anchor in ids for anchor in re.findall(r'xlink:href="#([^"]+)"', text))
    said = " ".join(out.split("\n\n", 1)[0].split())
    assert said.split(".")[0] in text
    assert sorted(path.name for path in folder.iterdir()) == [
        "hot.png",
        "sensitivity.png",
        "use.png",
        "waits.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())


def test_without_the_extra_it_says_which(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def find(name: str, package: str | None = None) -> object:
        return None if name == "matplotlib" else importlib.util.find_spec(name, package)

    monkeypatch.setattr("scheduler.capacity.report.find_spec", find)
    assert invoke(["plan", *LOAD, "--report", str(tmp_path / "plan.html")]) == 2
    assert "pip install 'warmline[report]'" in capsys.readouterr().err


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["plan", "--help"]) == 0
    out = capsys.readouterr().out
    assert "warmline plan fleet.hlog" in out
    assert all(len(line) <= 80 for line in out.splitlines())

"""`warmline serve --spool`: what one process was told, the next one knows, however the first one ended."""

from __future__ import annotations

import signal
import stat
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from pool.emulator import EmulatorSettings, context_digest, serve_emulator
from pool.wire.codec import from_json, to_json
from scheduler.cli import invoke
from tests.gateway.stage import until
from tests.gateway.test_admin import run
from tests.gateway.test_serve import client_of, gateway
from tests.gateway.test_turns import Items, user
from tests.gateway.web import WebClient


async def turn(client: WebClient, history: Items, told: dict[str, Any] | None = None) -> dict[str, Any]:
    """Take a turn, and check what the server saw; with `told` the client says that instead of the whole history."""
    body = {"model": "m", "store": False, "metadata": {"emulator": "calls=0"}, **(told or {"input": history})}
    answer = await client.ask("POST", "/v1/responses", to_json(body))
    assert answer.status == 200, answer.content
    done: dict[str, Any] = answer.json
    assert done["metadata"]["context"] == context_digest(history)
    return done


async def ended(process: subprocess.Popen[str]) -> None:
    with trio.fail_after(20):
        await trio.to_thread.run_sync(process.wait)


def stats(admin: Path) -> dict[str, Any]:
    shown = run("show", "stats", "--json", "--admin", admin)
    return {row["name"]: row["value"] for row in from_json(shown.output)["rows"]}


async def until_written(admin: Path) -> None:
    with trio.fail_after(20):
        while True:
            if (await trio.to_thread.run_sync(stats, admin))["spool_written"]:
                return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["told to stop", "killed"])
async def test_conversations_go_on_after_a_restart(tmp_path: Path, number: signal.Signals) -> None:
    folder, admin = tmp_path / "spool", tmp_path / "admin.sock"
    history: Items = [user("one")]
    async with serve_emulator(EmulatorSettings()) as emulator:
        with gateway(emulator.url, "--spool", str(folder), admin=str(admin)) as (process, url):
            done = await alone(url, history)
            if number is signal.SIGKILL:
                await until_written(admin)
            process.send_signal(number)
            await ended(process)
        for words in ("two", "three"):
            history += [*done["output"], user(words)]
            told = None if words == "two" else {"input": words, "previous_response_id": done["id"]}
            with gateway(emulator.url, "--spool", str(folder), admin=str(admin)) as (process, url):
                done = await alone(url, history, told)
                found = await trio.to_thread.run_sync(stats, admin)
                assert (found["spool_restored"], found["turns replay:resumed"]) == (1, 1)
                process.send_signal(signal.SIGTERM)
                await ended(process)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.iterdir()  # the journal has been put away
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_who_takes_over_knows_the_conversations(tmp_path: Path) -> None:
    admin = tmp_path / "admin.sock"
    options = ["--spool", str(tmp_path / "spool")]
    history, busy_history = [user("one")], [user("busy")]
    later: list[dict[str, Any]] = []
    async with serve_emulator(EmulatorSettings(latency="base=0.3")) as emulator:
        with gateway(emulator.url, *options, admin=str(admin)) as (old, url):
            done = await alone(url, history)
            async with trio.open_nursery() as nursery:

                async def be_busy() -> None:
                    later.append(await alone(url, busy_history))

                nursery.start_soon(be_busy)
                await until(lambda: emulator.emulator.stats.responses == 2)
                options += ["--listen", urlsplit(url).netloc, "--takeover"]
                with gateway(emulator.url, *options, admin=str(admin)) as (new, _):
                    history += [*done["output"], user("two")]
                    await alone(
                        url, history, {"input": "two", "previous_response_id": done["id"]}
                    )  # of either
                    await ended(old)
                    (done,) = later  # told by the old one, when the new one was there already
                    busy_history += [*done["output"], user("more")]
                    await alone(url, busy_history, {"input": "more", "previous_response_id": done["id"]})
                    assert (await trio.to_thread.run_sync(stats, admin))["spool_restored"] >= 1
                    new.send_signal(signal.SIGTERM)
                    await ended(new)


async def alone(url: str, history: Items, told: dict[str, Any] | None = None) -> dict[str, Any]:
    """Take a turn on a connection of its own."""
    client = await client_of(url)
    async with client.stream:
        return await turn(client, history, told)


def test_a_folder_that_cannot_be_used_is_said_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    arguments = ["serve", "--url", "http://127.0.0.1:9/v1", "--listen", "127.0.0.1:0", "--admin", "none"]
    assert invoke([*arguments, "--spool", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"warmline: error: spool = {str(tmp_path)!r}: must be this user's own")
    assert "chmod 700" in error
    assert error.count("\n") == 1
    assert invoke([*arguments, "--spool-age", "60"]) == 2
    assert "needs a spool: --spool DIR" in capsys.readouterr().err

"""What an operator says to `warmline serve`: its admin socket, a reload, and what is refused."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from pool.errors import SettingsError
from pool.settings import PoolSettings
from pool.wire.codec import from_json
from scheduler.commands.operating import Operating
from scheduler.commands.serve import serve
from scheduler.gateway.config import Config, load
from scheduler.gateway.keys import digest_of
from scheduler.gateway.reload import Reload
from scheduler.gateway.server import RunningGateway
from tests.emulator.client import connected, knobs
from tests.gateway.stage import staged, until


def operating(admin: str | None = None, **said: Any) -> Operating:
    given = {"admin_token": None, "takeover": False, "config": Config(), "parameters": (), "settings": ()}
    return Operating(admin=admin, **{**given, **said})


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"admin": "0.0.0.0:99", "admin_token": "x"}, "127.0.0.1"),
        ({"admin": "127.0.0.1:99"}, "admin_token"),
        ({"admin": "127.0.0.1:x"}, "HOST:PORT"),
        ({"admin": "none", "takeover": True}, "takeover"),
        ({"admin": "127.0.0.1:99", "admin_token": "x", "takeover": True}, "takeover"),
    ],
)
def test_what_cannot_be_said(said: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        operating(**said).check()


def test_where_the_operator_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    for admin, where in (
        (None, "/run/user/7/warmline/serve-80.sock"),
        ("none", None),
        ("/x/y.sock", "/x/y.sock"),
        ("here.sock", "here.sock"),
        ("127.0.0.1:99", ("127.0.0.1", 99)),
    ):
        said = operating(admin, admin_token="secret-7")
        said.check()
        assert said.where(80) == where
        assert "secret-7" not in repr(said)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert f"warmline-{os.getuid()}" in str(operating().where(80))


def written(
    path: Path, *keys: str, pool: str = "", plain: str = "", endpoints: list[str] | None = None
) -> Config:
    more = "" if endpoints is None else f"endpoints = {endpoints}\n"
    tables = "".join(f'[[keys]]\nname = "{key}"\ndigest = "{digest_of(key)}"\n{more}' for key in keys)
    path.write_text(f'client_keys = "virtual"\n{plain}\n{tables}\n[pool]\n{pool}\n')
    return load(path, serve.params)


async def test_a_reload_changes_what_it_can_and_says_the_rest(
    autojump_clock: trio.abc.Clock, tmp_path: Path
) -> None:
    path = tmp_path / "serve.toml"
    config = written(path, "one", pool="max_connections = 2")
    keys = config.tables.keys
    async with staged(policy="virtual", keys=keys, pool=PoolSettings(max_connections=2, min_idle=0)) as stage:
        gateway = stage.gateway
        reload = Reload(config, serve.params, gateway)
        async with connected(gateway, headers={"authorization": "Bearer one"}) as client:
            await client.turn(metadata=knobs("calls=0"))
            assert reload() == "reloaded: 1 key"
            written(path, "one", pool="max_connections = 2", endpoints=["responses"])
            assert reload() == "reloaded: 1 key; ended 1 WebSocket of keys that have changed"
            assert (await client.until_closed())[1] == 1008
        written(path, "one", "two", pool="max_connections = 5\nreserve = 7.0", plain="grace = 9")
        said = reload()
        assert said.startswith("reloaded: 2 keys; after a restart (serve --takeover): ")
        for waits in ("grace", "pool.reserve", "tenants"):
            assert waits in said
        (upstream,) = gateway.upstreams.all
        assert upstream.scheduler.pool.settings.max_connections == 5
        assert gateway.keys.identify({"authorization": "Bearer two"}).name == "two"
        assert "grace" in reload()  # until it is restarted
        path.write_text("nonsense = 1")
        with pytest.raises(SettingsError, match="no such setting"):
            reload()
        assert gateway.keys.identify({"authorization": "Bearer two"}).name == "two"
    with pytest.raises(SettingsError, match="--config"):
        Reload(Config(), serve.params, gateway)()


async def test_the_operators_door_of_a_running_gateway(tmp_path: Path) -> None:
    path = str(tmp_path / "admin.sock")
    config = written(tmp_path / "serve.toml", "one")
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with staged(policy="virtual", keys=config.tables.keys) as stage:
        running = RunningGateway(stage.gateway, [listener])
        said = operating(path, config=config, parameters=serve.params, settings=[("grace", 9.0, "--grace")])
        assert await said.take_over(1) == []
        async with said.serve(running):
            stream = await trio.open_unix_socket(path)
            async with stream:
                await stream.send_all(b'{"verb":"show","name":"settings"}\n')
                answer = from_json(await stream.receive_some())
            assert answer["rows"] == [["grace", 9.0, "--grace"]]
            with pytest.raises(SettingsError, match="another gateway answers there"):
                async with operating(path).serve(running):
                    raise AssertionError
            written(tmp_path / "serve.toml", "one", "two")
            signal.raise_signal(signal.SIGHUP)
            await until(lambda: len(stage.gateway.keys.keys) == 2)
        assert os.listdir(tmp_path) == ["serve.toml"]
        async with operating("none").serve(running):
            pass
    await listener.aclose()


async def test_taking_over_from_somebody_who_passes_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "other.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen()

        def refuse() -> None:
            with listening.accept()[0] as connection:
                connection.recv(100)
                connection.sendall(b'{"error":"no"}\n')

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, refuse)
            assert await operating(path, takeover=True).take_over(1) == []

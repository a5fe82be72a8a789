"""Which endpoint the options make."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
import trio

from pool.auth import KeyFromEnv, KeyFromFile, NoAuth
from pool.errors import SettingsError
from pool.settings import Endpoint, Lanes
from scheduler.commands.endpoints import EndpointChoice

VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "azure": "AZURE_OPENAI_API_KEY",
    "xai": "XAI_API_KEY",
    "vercel": "AI_GATEWAY_API_KEY",
}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*VARIABLES.values(), "WARMLINE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


def test_openai_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert EndpointChoice().build() == Endpoint.openai()
    assert not EndpointChoice().embedded


@pytest.mark.parametrize("name", VARIABLES)
def test_each_vendor_wants_its_own_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = EndpointChoice(endpoint=name, resource="res" if name == "azure" else None)
    with pytest.raises(SettingsError, match=rf"{VARIABLES[name]}.*--endpoint emulator"):
        choice.build()
    monkeypatch.setenv(VARIABLES[name], "key")
    assert choice.build().name == name


def test_azure_needs_a_resource_and_nobody_else_does() -> None:
    for choice in (EndpointChoice(endpoint="azure"), EndpointChoice(endpoint="xai", resource="res")):
        with pytest.raises(click.UsageError, match="--endpoint azure and --resource NAME go together"):
            choice.build()


async def test_a_key_file_goes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    path = tmp_path / "key"
    path.write_text("sk-file\n")
    endpoint = EndpointChoice(key_file=str(path)).build()
    key = await endpoint.auth.key()
    assert key is not None
    assert key.reveal() == "sk-file"
    with pytest.raises(SettingsError, match="key file"):
        EndpointChoice(key_file=str(tmp_path / "nothing")).build()
    await trio.lowlevel.checkpoint()


def test_a_url_alone_is_any_server_and_gets_no_vendors_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    endpoint = EndpointChoice(url="http://127.0.0.1:8080/v1").build()
    assert (endpoint.url, endpoint.name) == ("ws://127.0.0.1:8080/v1/responses", "127.0.0.1:8080")
    assert endpoint.auth == NoAuth()
    assert endpoint.lanes == Lanes.single()
    monkeypatch.setenv("WARMLINE_API_KEY", "key")
    assert EndpointChoice(url="http://127.0.0.1:8080/v1").build().auth == KeyFromEnv("WARMLINE_API_KEY")


def test_a_named_service_behind_a_url_keeps_its_key_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XAI_API_KEY", "key")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "key")
    endpoint = EndpointChoice(endpoint="xai", url="https://proxy.example/x").build()
    assert (endpoint.url, endpoint.http_url) == ("wss://proxy.example/x/responses", "https://proxy.example/x")
    assert (endpoint.max_age, endpoint.auth) == (1500.0, KeyFromEnv("XAI_API_KEY"))
    assert EndpointChoice(endpoint="azure", url="https://mine.example/v1").build().name == "azure"


def test_an_emulator_is_ours_unless_it_has_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMLINE_API_KEY", "key")
    ours = EndpointChoice(endpoint="emulator")
    assert ours.embedded
    assert ours.build("http://127.0.0.1:5/v1").auth == NoAuth()
    theirs = EndpointChoice(endpoint="emulator", url="http://127.0.0.1:6/v1")
    assert not theirs.embedded
    assert theirs.build().auth == KeyFromEnv("WARMLINE_API_KEY")
    path = tmp_path / "key"
    path.write_text("k")
    keyed = EndpointChoice(endpoint="emulator", url="http://127.0.0.1:6/v1", key_file=str(path))
    assert keyed.build().auth == KeyFromFile(path)


def test_lanes_can_be_said() -> None:
    url = "http://127.0.0.1:6/v1"
    assert EndpointChoice(url=url, lanes="multi").build().lanes == Lanes.multi()
    assert EndpointChoice(endpoint="emulator", url=url, lanes="single").build().lanes == Lanes.single()


@pytest.mark.parametrize("url", ["ftp://host/v1", "http://", "http://user:pw@host/v1", "http://host:x/v1"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(SettingsError, match="url"):
        EndpointChoice(url=url).build()

"""Keys: where they come from, and that nobody ever sees one."""

from __future__ import annotations

import copy
import math
import traceback
from pathlib import Path
from typing import Any

import pytest
import trio

from pool import DialFailed, Endpoint, PoolSettings, SettingsError
from pool.auth import (
    Auth,
    KeyFromCallable,
    KeyFromEnv,
    KeyFromFile,
    NoAuth,
    Secret,
    StaticKey,
    auth_from,
    checked_key,
)
from pool.dial import Dialer

KEY = "sk-hunter2-0123456789"


async def key_of(auth: Auth) -> str:
    key = await auth.key()
    assert key is not None
    return key.reveal()


def test_a_key_of_another_type_is_refused_at_once_and_not_shown() -> None:
    wrong: Any = {"key": KEY}
    with pytest.raises(SettingsError, match="must be a text, a function") as caught:
        Endpoint.openai(key=wrong)
    assert KEY not in str(caught.value)


async def test_every_source_gives_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    (tmp_path / "key").write_text(f"{KEY}\n")

    async def later() -> str:
        await trio.lowlevel.checkpoint()
        return KEY

    sources: list[Auth] = [
        StaticKey(Secret(KEY)),
        KeyFromEnv("SOME_KEY"),
        KeyFromFile(tmp_path / "key"),
        KeyFromFile(str(tmp_path / "key")),
        KeyFromCallable(lambda: KEY),
        KeyFromCallable(later),
    ]
    for auth in sources:
        auth.check()
        assert await key_of(auth) == KEY
    assert await NoAuth().key() is None
    NoAuth().check()


async def test_a_key_is_read_anew_at_each_dial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "key"
    for key in ("first", "second"):
        monkeypatch.setenv("SOME_KEY", key)
        path.write_text(key)
        assert await key_of(KeyFromEnv("SOME_KEY")) == key
        assert await key_of(KeyFromFile(path)) == key


async def test_whatever_a_user_gives_as_a_key_is_understood() -> None:
    assert auth_from(None, variable="V") == KeyFromEnv("V")
    assert auth_from(KEY, variable="V") == StaticKey(Secret(KEY))
    assert auth_from(Secret(KEY), variable="V") == StaticKey(Secret(KEY))
    ready = KeyFromFile("x")
    assert auth_from(ready, variable="V") is ready
    assert await key_of(auth_from(lambda: KEY, variable="V")) == KEY


def test_a_missing_variable_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingsError) as caught:
        Endpoint.openai().auth.check()
    assert str(caught.value) == (
        "OPENAI_API_KEY = (not set): set the environment variable OPENAI_API_KEY to your API key, "
        "or use the emulator, which needs none (--endpoint emulator; in Python Endpoint.emulator(url))"
    )


@pytest.mark.parametrize("text", ["", "  \n", "two words", "tab\tbed", "ümlaut", "line\nbreak", "nul\0"])
def test_a_key_that_no_key_looks_like(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        checked_key(text, source="the key")
    assert not text.strip() or text.strip() not in str(caught.value)
    with pytest.raises(SettingsError):
        StaticKey(Secret(text)).check()


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00key"])
def test_a_key_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="cannot be read") as caught:
        KeyFromFile(path).check()
    assert str(path) in str(caught.value)


async def test_a_key_function_that_fails_costs_a_dial_and_not_the_pool() -> None:
    def broken() -> str:
        raise RuntimeError(f"no token for {KEY}")

    auth = KeyFromCallable(broken)
    auth.check()
    with pytest.raises(SettingsError, match="the key function raised RuntimeError") as caught:
        await auth.key()
    assert KEY not in str(caught.value)
    wrong: Any = KeyFromCallable(lambda: 42)  # type: ignore[arg-type, return-value]
    with pytest.raises(SettingsError, match="returned int; it must return a string"):
        await wrong.key()


async def test_a_cancelled_key_function_is_cancelled() -> None:
    async def forever() -> str:
        await trio.sleep(math.inf)
        return KEY

    with trio.CancelScope() as scope:
        scope.cancel()
        await KeyFromCallable(forever).key()
    assert scope.cancelled_caught


def test_a_secret_is_equal_to_itself_and_shows_nothing() -> None:
    secret = Secret(KEY)
    assert secret == Secret(KEY)
    assert secret != Secret("other")
    assert secret != KEY
    assert hash(secret) == hash(Secret(KEY))
    assert copy.copy(secret).reveal() == KEY
    assert [str(secret), repr(secret), f"{secret}", f"{[secret]}"] == ["Secret(***)"] * 3 + ["[Secret(***)]"]


def test_nothing_that_holds_a_key_shows_it() -> None:
    endpoint = Endpoint.openai(key=KEY).with_(
        headers={"X-Api-Key": KEY}, url=f"wss://api.openai.com/v1/responses?token={KEY}"
    )
    for thing in (
        endpoint,
        endpoint.auth,
        Endpoint.openai(key=lambda: KEY).auth,
        Dialer(endpoint, PoolSettings()),
    ):
        assert KEY not in repr(thing) + str(thing)


async def test_no_error_of_a_dial_shows_the_key() -> None:
    def broken() -> str:
        raise RuntimeError(KEY)

    bad: list[Any] = [f"{KEY} {KEY}", f"{KEY}\nX: y", broken, lambda: None]
    for key in bad:
        dialer = Dialer(Endpoint.openai(key=key), PoolSettings())
        with pytest.raises(DialFailed, match=r"no key for wss://api.openai.com/v1/responses") as caught:
            await dialer(_never, trio.CancelScope())
        error = caught.value
        assert error.hopeless is (key is not broken)
        shown = "".join(traceback.format_exception_only(error))
        assert KEY not in shown + repr(error)
        assert error.__cause__ is None


async def _never(_wire: object) -> None:
    await trio.lowlevel.checkpoint()
    raise AssertionError("not opened")

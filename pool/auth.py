"""Keys: where they come from, and how they stay out of sight."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from attrs import field, frozen

from pool.errors import SettingsError
from pool.private_files import read_secret


class _NotSet:
    """How errors show a variable that is not there."""

    def __repr__(self) -> str:
        return "(not set)"


NOT_SET = _NotSet()


class Secret:
    """A string that shows itself only when asked by name: `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Auth(Protocol):
    """Gives the key for one dial. Called at each dial, because tokens expire."""

    async def key(self) -> Secret | None:
        """Return the key, or None where the endpoint needs none."""
        ...

    def check(self) -> None:
        """Raise `SettingsError` now when it is already plain that there is no key."""
        ...


def checked_key(text: str, *, source: str) -> Secret:
    """Strip and check a key that came from `source`, so that a stray line break is not sent as a header."""
    key = text.strip()
    if not key:
        raise SettingsError("key", "(empty)", f"{source} is empty; put a key there")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(
            "key", "(hidden)", f"{source} holds characters that no key has; paste the key alone"
        )
    return Secret(key)


@frozen
class NoAuth:
    """For endpoints that ask for no key."""

    async def key(self) -> Secret | None:
        """Return None."""
        return None

    def check(self) -> None:
        """Always well."""


@frozen
class StaticKey:
    """A key given as it is."""

    secret: Secret

    async def key(self) -> Secret | None:
        """Return the key."""
        return checked_key(self.secret.reveal(), source="the key")

    def check(self) -> None:
        """Raise when the key is empty or malformed."""
        checked_key(self.secret.reveal(), source="the key")


@frozen
class KeyFromEnv:
    """A key from an environment variable, read at each dial."""

    variable: str

    def _read(self) -> Secret:
        text = os.environ.get(self.variable)
        if text is None:
            raise SettingsError(
                self.variable,
                NOT_SET,
                f"set the environment variable {self.variable} to your API key, "
                "or use the emulator, which needs none (--endpoint emulator; in Python Endpoint.emulator(url))",
            )
        return checked_key(text, source=f"the environment variable {self.variable}")

    async def key(self) -> Secret | None:
        """Return the key."""
        return self._read()

    def check(self) -> None:
        """Raise when the variable is not set."""
        self._read()


@frozen
class KeyFromFile:
    """A key from a file, read at each dial, so that a rotated key is picked up."""

    path: Path = field(converter=Path)

    def _read(self) -> Secret:
        try:
            text = read_secret(self.path)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                "key file", str(self.path), f"cannot be read ({error}); check the path"
            ) from None
        return checked_key(text, source=f"the key file {self.path}")

    async def key(self) -> Secret | None:
        """Return the key."""
        return self._read()

    def check(self) -> None:
        """Raise when the file cannot be read."""
        self._read()


@frozen
class KeyFromCallable:
    """A key from a function, sync or async, called at each dial: for tokens that expire."""

    function: Callable[[], str | Awaitable[str]] = field(repr=False)

    async def key(self) -> Secret | None:
        """Call the function and return what it gives."""
        try:
            result = self.function()
            text = await result if inspect.isawaitable(result) else result
        except Exception as error:
            # A token service that is down must cost this dial, not the pool. The message may hold the token.
            remedy = f"the key function raised {type(error).__name__}; see to it, the dial is tried again"
            raise SettingsError("key", "(none)", remedy) from error
        if not isinstance(text, str):
            raise SettingsError(
                "key", "(none)", f"the key function returned {type(text).__name__}; it must return a string"
            )
        return checked_key(text, source="the key function")

    def check(self) -> None:
        """Nothing can be said before the first call."""


def auth_from(key: str | Secret | Auth | Callable[[], str | Awaitable[str]] | None, *, variable: str) -> Auth:
    """Turn whatever a user gives as a key into an `Auth`; None means the environment variable."""
    if key is None:
        return KeyFromEnv(variable)
    if isinstance(key, str):
        return StaticKey(Secret(key))
    if isinstance(key, Secret):
        return StaticKey(key)
    if hasattr(key, "check") and hasattr(key, "key"):
        return key
    if not callable(key):
        raise SettingsError(
            "key", f"({type(key).__name__})", "must be a text, a function, KeyFromEnv or KeyFromFile"
        )
    return KeyFromCallable(key)

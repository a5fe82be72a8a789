"""The options that say which service to talk to, the endpoint they make, and what an emulator of ours is told."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click
from attrs import fields, frozen

if TYPE_CHECKING:  # `--help` answers without the pool
    from pool.auth import Auth
    from pool.settings import Endpoint

NAMES = ("openai", "azure", "xai", "vercel", "emulator")
KEY_VARIABLE = "WARMLINE_API_KEY"
F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.option(
        "--endpoint",
        type=click.Choice(NAMES),
        help="Whose service.  [default: openai]  `emulator` starts one on this machine, which needs no key.",
    ),
    click.option("--url", metavar="URL", help="Any server of the protocol, e.g. http://127.0.0.1:8080/v1."),
    click.option(
        "--resource", metavar="NAME", help="For --endpoint azure: NAME as in https://NAME.openai.azure.com."
    ),
    click.option(
        "--key-file",
        type=click.Path(dir_okay=False),
        metavar="FILE",
        help="File with the API key.  [default: OPENAI_API_KEY, AZURE_OPENAI_API_KEY, XAI_API_KEY or "
        f"AI_GATEWAY_API_KEY; {KEY_VARIABLE} with --url]",
    ),
    click.option(
        "--lanes",
        type=click.Choice(["single", "multi"]),
        help="Responses on one connection at a time.  [default: what the endpoint can; single with --url]",
    ),
)
EMULATOR_OPTIONS = (
    click.option(
        "--emulator-script", metavar="TEXT", help="For the emulator we start, e.g. 'calls=6 parallel=2'."
    ),
    click.option(
        "--emulator-latency", metavar="TEXT", help="Likewise: none, typical, or e.g. base=0.3,output=0.01."
    ),
    click.option("--emulator-seed", type=int, metavar="N", help="Likewise."),
)


@frozen(kw_only=True)
class EndpointChoice:
    """What was given. `embedded`: an emulator has to be started, and its URL is the endpoint's."""

    endpoint: str | None = None
    url: str | None = None
    resource: str | None = None
    key_file: str | None = None
    lanes: str | None = None

    @property
    def embedded(self) -> bool:
        """Whether the emulator is to be started by us."""
        return self.endpoint == "emulator" and self.url is None

    def build(self, url: str | None = None, *, keyless: bool = False) -> Endpoint:
        """Return the endpoint; `url` is the embedded emulator's; `keyless`: others bring their keys.

        Raises:
            click.UsageError: the options do not go together.
            SettingsError: a value cannot be used, or there is no key.
        """
        endpoint = self._preset(url or self.url)
        if self.lanes is not None:
            from pool.settings import Lanes

            endpoint = endpoint.with_(lanes=Lanes.multi() if self.lanes == "multi" else Lanes.single())
        if keyless:
            from pool.auth import NoAuth

            return endpoint.with_(auth=NoAuth())
        endpoint.auth.check()
        return endpoint

    def _preset(self, url: str | None) -> Endpoint:
        from pool.auth import KeyFromFile
        from pool.settings import Endpoint

        key = KeyFromFile(self.key_file) if self.key_file is not None else None
        name = self.endpoint or ("openai" if url is None else None)
        if (name == "azure") != (self.resource is not None) and not (name == "azure" and url):
            raise click.UsageError("--endpoint azure and --resource NAME go together.")
        match name:
            case "emulator":
                assert url is not None, "an embedded emulator is started first"
                return Endpoint.emulator(url, key=key or self._key_for_url())
            case None:
                assert url is not None
                found = Endpoint.open_responses(url, key=key or self._key_for_url())
                return found.with_(name=urlsplit(found.url).netloc)
            case "azure":
                preset = Endpoint.azure(self.resource or "resource", key=key)
            case "xai":
                preset = Endpoint.xai(key=key)
            case "vercel":
                preset = Endpoint.vercel(key=key)
            case _:
                preset = Endpoint.openai(key=key)
        if url is None:
            return preset
        # A named service behind another address, e.g. a proxy: its key and its limits, at that URL.
        there = Endpoint.open_responses(url)
        return preset.with_(url=there.url, http_url=there.http_url)

    def _key_for_url(self) -> Auth | None:
        """A key is sent to a URL of the user's choice only from the variable that exists for that."""
        from pool.auth import KeyFromEnv

        return KeyFromEnv(KEY_VARIABLE) if KEY_VARIABLE in os.environ and not self.embedded else None


def endpoint_options(function: F) -> F:
    """Add the options to a command, which is given one `choice=EndpointChoice(...)` for them all."""
    names = [attribute.name for attribute in fields(EndpointChoice)]

    @functools.wraps(function)
    def with_choice(*args: Any, **options: Any) -> Any:
        choice = EndpointChoice(**{name: options.pop(name) for name in names})
        return function(*args, choice=choice, **options)

    command: F = _added(OPTIONS, with_choice)
    return command


def emulator_options(function: F) -> F:
    """Add the options below `endpoint_options` to a command, which is given `emulator`: those that were set."""
    names = ("script", "latency", "seed")

    @functools.wraps(function)
    def with_script(*args: Any, choice: EndpointChoice, **options: Any) -> Any:
        every = {name: options.pop(f"emulator_{name}") for name in names}
        given = {name: value for name, value in every.items() if value is not None}
        if given and not choice.embedded:
            raise click.UsageError(
                f"--emulator-{next(iter(given))} is for the emulator that `--endpoint emulator` without --url starts."
            )
        return function(*args, choice=choice, emulator=given, **options)

    command: F = _added(EMULATOR_OPTIONS, with_script)
    return command


def _added(options: Iterable[Callable[[Any], Any]], command: Any) -> Any:
    for option in reversed(tuple(options)):
        command = option(command)
    return command

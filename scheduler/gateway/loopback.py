"""Who may come in without a key: programs of this machine, and no page that a browser has from elsewhere. Pure.

Theory of operation
    On loopback a gateway may lend its key to everybody (`open`): only programs of this machine reach it. A browser
    is such a program, and runs what strangers have written. A page from anywhere may post to `http://127.0.0.1:8787`,
    and open a WebSocket there; and one whose own name suddenly means 127.0.0.1 (DNS rebinding) may read the answers.

    Browsers say which page a request is from (`Origin`, `Sec-Fetch-Site`), and under which name it knows us (`Host`).
    Pages cannot change these, so a request is taken when they name this machine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from pool.wire.refusal import Refused


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may mean anything, and tomorrow something else


def check_local(headers: Mapping[str, str]) -> None:
    """Raise `Refused` (403) for what a page from elsewhere has a browser send. `headers` have lower-case names."""
    origin = headers.get("origin")
    if not _names_loopback(
        f"//{headers.get('host', 'localhost')}"
    ):  # HTTP/1.0, which no browser speaks, may lack it
        raise _refused("Host", headers["host"])
    if origin is not None:
        if not _names_loopback(origin):
            raise _refused("Origin", origin)
    elif headers.get("sec-fetch-site") == "cross-site":  # an image's source, for instance, has no Origin
        raise _refused("Sec-Fetch-Site", "cross-site")


def _names_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return is_loopback(host) or host.endswith(".localhost")  # RFC 6761


def _refused(name: str, value: str) -> Refused:
    return Refused(
        f"The gateway lends its key to programs of this machine alone, and {name} says {value[:80]!r}: use 127.0.0.1 "
        "or localhost, or start the gateway with --client-keys virtual, which asks for a key.",
        status=403,
        code="not_local",
    )

"""Reads a dashboard's state over HTTP, for those without a browser."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from attrs import field, frozen

from pool.auth import Secret
from pool.printable import printable_json
from pool.redaction import PROCESS
from pool.wire.codec import from_json
from scheduler.errors import SchedulerError

if TYPE_CHECKING:
    from scheduler.dashboard.frame import Frame

TIMEOUT = 5.0  # s, for an answer


class NoDashboard(SchedulerError):
    """A dashboard cannot be read; the message says what to do."""


class BadAddress(NoDashboard):
    """What was given is no address of one."""


@frozen(kw_only=True)
class DashboardUrl:
    """Where a dashboard is, and the token for it. Shown without the token."""

    scheme: str
    host: str
    port: int
    token: Secret | None = field(default=None, repr=False)
    source: str = ""

    @classmethod
    def parse(cls, text: str) -> DashboardUrl:
        """Return what a URL, `HOST:PORT` or a port alone means.

        Raises:
            BadAddress: it means nothing; the message says what would.
        """
        example = "give what --dashboard printed, e.g. http://127.0.0.1:9100/"
        address = text.strip()
        if address.isascii() and address.isdigit():
            address = f"127.0.0.1:{address}"
        parts = urlsplit(address if "://" in address else f"http://{address}")
        shown = parts._replace(query="", fragment="").geturl()
        try:
            port = parts.port
        except ValueError:
            raise BadAddress(f"{shown} has a port that is no number up to 65535; {example}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadAddress(f"{shown!r} is no address of a dashboard; {example}")
        asked = parse_qs(parts.query)
        token = asked.get("token", [""])[0]
        PROCESS.keep(token)
        return cls(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port or (443 if parts.scheme == "https" else 80),
            token=Secret(token) if token else None,
            source=asked.get("source", [""])[0],
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/"


def read_state(url: DashboardUrl, source: str = "") -> Frame:
    """Return a dashboard's frame; of the first scheduler if none is named. Blocks for a few seconds at most.

    Raises:
        NoDashboard: nobody answers, it is no dashboard, the token is wrong, or there is no such scheduler.
    """
    headers = {"accept": "application/json"}
    if url.token is not None:
        headers["authorization"] = f"Bearer {url.token.reveal()}"
    secure = url.scheme == "https"
    connection = (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(
        url.host, url.port, timeout=TIMEOUT
    )
    try:
        connection.request("GET", f"/state.json?source={quote(source)}", headers=headers)
        answer = connection.getresponse()
        status, said = answer.status, answer.read(16 * 1024 * 1024)
    except TimeoutError:
        raise NoDashboard(f"{url} does not answer within {TIMEOUT:g} s; is its process stuck?") from None
    except (OSError, http.client.HTTPException) as error:
        raise NoDashboard(_unreachable(url, error)) from None
    finally:
        connection.close()
    return _checked(url, status, said)


def _unreachable(url: DashboardUrl, error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens at {url}; is the process with --dashboard still running?"
    if isinstance(error, http.client.HTTPException):
        return f"{url} answers, but it does not speak HTTP; is this the address that --dashboard printed?"
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{url} cannot be reached: {why}"


def _checked(url: DashboardUrl, status: int, said: bytes) -> Frame:
    if status == 401:
        what = "needs a token" if url.token is None else "does not know this token"
        raise NoDashboard(f"{url} {what}: give the whole URL that its process printed, in quotes")
    text = said[:200].decode(errors="replace").strip()
    if text.startswith("warmline dashboard: "):
        raise NoDashboard(f"{url} says: {text.removeprefix('warmline dashboard: ')}")
    frame: Any = None
    if status == 200:
        try:
            frame = from_json(said)
        except ValueError:
            frame = None
    if not isinstance(frame, Mapping) or "verdict" not in frame or "figures" not in frame:
        raise NoDashboard(f"{url} answers, but is no warmline dashboard (HTTP {status})")
    shown: Frame = printable_json(frame)  # whoever answers there
    return shown

"""Who may read the page. Pure.

Theory of operation
    On the loopback everybody on this machine may, so the danger is somebody else's page in the user's own browser. It
    is kept out three ways: its requests say `Sec-Fetch-Site: cross-site` or carry an `Origin` that is not ours; no
    answer allows another origin to read it; and a name of its own that it points at 127.0.0.1 (DNS rebinding) arrives
    as a `Host` that is no loopback name.

    Elsewhere a token is asked for. The first visit brings it in the URL; the answer puts it into a cookie that
    scripts cannot read and other sites' requests do not carry, and sends the browser to the URL without it. Programs
    send it as `Authorization: Bearer`. A rebinding page has no such cookie, so any `Host` is taken then: people give
    their machines names of which we know nothing.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import parse_qs, quote, unquote

from attrs import frozen

from pool.auth import Secret
from pool.web import Head

LOCAL_NAMES = frozenset({"localhost", "localhost."})


@frozen(kw_only=True)
class Refusal:
    """The request is not answered; the message is for whoever made it."""

    status: int
    message: str


@frozen(kw_only=True)
class Welcome:
    """The first visit brought the token: it becomes a cookie, and the URL loses it."""

    cookie: str
    location: str


@frozen(kw_only=True)
class Access:
    """The rules of one listener. Without a token it must be one of the loopback's."""

    token: Secret | None = None
    port: int = 0  # cookies know hosts but no ports: its name tells two dashboards of one machine apart

    @property
    def cookie(self) -> str:
        """Its name."""
        return f"warmline-{self.port}"

    def check(self, head: Head) -> Refusal | Welcome | None:
        """Return None when the request may be answered."""
        if head.method != "GET":
            return Refusal(status=405, message="Only GET is answered here.")
        if self._foreign(head):
            return Refusal(status=403, message="This page may not be read by other pages.")
        if self.token is None:
            if not local_host(head.headers.get("host", "")):
                message = "This dashboard answers to localhost and 127.0.0.1 only, not to other names."
                return Refusal(status=421, message=message)
            return None
        given = parse_qs(head.query).get("token", [""])[0]
        if given and self._right(given):
            rest = "&".join(part for part in head.query.split("&") if not part.startswith("token="))
            value = quote(given, safe="")
            return Welcome(
                cookie=f"{self.cookie}={value}; HttpOnly; SameSite=Strict; Path=/",
                location=head.path + (f"?{rest}" if rest else ""),
            )
        bearer = head.headers.get("authorization", "")
        if bearer[:7].lower() == "bearer " and self._right(bearer[7:].strip()):
            return None
        if self._right(_cookie(head, self.cookie)):
            return None
        where = "Open the URL with the token that warmline printed on stderr when it started."
        message = f"The token is wrong. {where}" if given or bearer else f"A token is needed. {where}"
        return Refusal(status=401, message=message)

    def _right(self, given: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(given.encode(), self.token.reveal().encode())

    def _foreign(self, head: Head) -> bool:
        """Another site asks, or a page of one does."""
        site = head.headers.get("sec-fetch-site", "none")
        opened = (
            head.path == "/" and head.headers.get("sec-fetch-mode") == "navigate"
        )  # by a link or a bookmark
        if site not in ("same-origin", "none") and not opened:
            return True
        origin, host = head.headers.get("origin"), head.headers.get("host", "")
        return origin is not None and origin not in (f"http://{host}", f"https://{host}")


def local_host(host: str) -> bool:
    """Return whether a `Host` names this machine's loopback, whatever the port: it may have been forwarded."""
    name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _cookie(head: Head, name: str) -> str:
    for part in head.headers.get("cookie", "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return unquote(value)
    return ""

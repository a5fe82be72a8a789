"""What the URL of a queue in Redis says. Pure."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from attrs import field, frozen

from pool.numbers import whole_number
from scheduler.worker.errors import QueueRefused

PORT = 6379
WANTED = (
    "write redis://HOST, redis://:PASSWORD@HOST:PORT/DATABASE, rediss:// for TLS, or unix:///run/redis.sock"
)
KEYS = ("queue", "db", "ca", "replicas")


@frozen(kw_only=True)
class RedisAddress:
    """Where the server is, and which of its queues is meant.

    `hosts`: any of which may be the one that writes; tried in turn. `socket`: a path, instead. `queue` names the
    queue, so that several can share a database. `replicas`: how many must have what has to survive, before it is
    acknowledged. `ca`: a file with the certificate authorities to trust. `name`: the URL, without what is secret.
    """

    name: str
    hosts: tuple[tuple[str, int], ...] = ()
    socket: str | None = None
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    queue: str = "warmline"
    replicas: int = 0
    ca: str | None = None

    @property
    def root(self) -> str:
        """What every key of the queue begins with. The braces keep them on one node of a cluster."""
        return f"{{{self.queue}}}:"


def read_address(url: str) -> RedisAddress:
    """Read the URL of a queue.

    Raises:
        QueueRefused: it is no such URL. What is secret in it is not repeated.
    """
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    shown = parts._replace(netloc=hosts).geturl()
    username, _, password = user.partition(":")
    options = _options(parts, shown)
    socket = unquote(parts.path) if parts.scheme == "unix" else None
    if socket is not None and (hosts or len(socket) < 2):
        raise QueueRefused(shown, f"names no socket; {WANTED}")
    queue = options.get("queue", "warmline")
    if not queue.isprintable() or not queue or set(queue) & set("{}:"):
        raise QueueRefused(shown, f"queue={queue!r} must be a printable text without braces and colons")
    return RedisAddress(
        name=shown,
        hosts=() if socket is not None else _hosts(hosts, shown),
        socket=socket,
        tls=parts.scheme in ("rediss", "valkeys"),
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=_whole(
            options.get("db") or ("" if socket is not None else parts.path.strip("/")) or "0",
            "the database",
            shown,
        ),
        queue=queue,
        replicas=_whole(options.get("replicas", "0"), "replicas", shown),
        ca=options.get("ca"),
    )


def _options(parts: SplitResult, shown: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in KEYS:
            raise QueueRefused(shown, f"unknown parameter {key!r}; there are {', '.join(KEYS)}")
        options[key] = value
    return options


def _hosts(text: str, shown: str) -> tuple[tuple[str, int], ...]:
    hosts = []
    for one in text.split(","):
        try:
            parts = urlsplit(f"//{one}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise QueueRefused(shown, f"{one!r} is no host and port; {WANTED}") from None
        if not host:
            raise QueueRefused(shown, f"names no host; {WANTED}")
        hosts.append((host, port or PORT))
    return tuple(hosts)


def _whole(text: str, what: str, shown: str) -> int:
    number = whole_number(text)
    if number is None:
        raise QueueRefused(shown, f"{what} must be a whole number, not {text!r}")
    return number

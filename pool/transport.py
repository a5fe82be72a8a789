"""The stream under a WebSocket or HTTP: TCP, directly or through an HTTP proxy, and TLS."""

from __future__ import annotations

import base64
import os
import ssl
import time
import urllib.request
from urllib.parse import unquote, urlsplit

import certifi
import h11
import trio
from attrs import define, field

from pool.errors import DialFailed
from pool.redaction import Secrets
from pool.retry_after import retry_after
from pool.settings import without_query

READ_SIZE = 64 * 1024


@define(eq=False)
class Transport:
    """Connects to the host of a URL: wss:// or https:// with TLS, else without.

    Builds its TLS context once, because that takes milliseconds, and looks once which proxy the environment names.
    """

    url: str = field(repr=lambda url: repr(without_query(url)))
    ca_file: str | None = None
    use_proxy: bool = True
    _context: ssl.SSLContext | None = field(default=None, init=False)
    _proxy: str | None = field(default=None, init=False, repr=False)
    _looked: bool = field(default=False, init=False)  # which proxy it is
    _secrets: Secrets = field(factory=Secrets, init=False, repr=False)  # the proxy's credentials

    async def __call__(self) -> trio.abc.Stream:
        """Connect.

        Raises:
            DialFailed: it could not be done.
        """
        parts = urlsplit(self.url)
        secure = parts.scheme in ("wss", "https")
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        if self.use_proxy and not self._looked:
            self._proxy, self._looked = proxy_for(host, port, secure=secure), True
            self._secrets.keep_url(self._proxy)
        if self._proxy is None:
            stream: trio.abc.Stream = await _connect(host, port, without_query(self.url))
        else:
            stream = await _through_proxy(self._proxy, host, port)
        return await self._secured(stream, host) if secure else stream

    async def _secured(self, stream: trio.abc.Stream, host: str) -> trio.abc.Stream:
        try:
            if self._context is None:
                self._context = tls_context(self.ca_file)
            tls = trio.SSLStream(stream, self._context, server_hostname=host, https_compatible=True)
            await tls.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError) as error:
            await trio.aclose_forcefully(stream)
            cause = error.__cause__ or error
            bad_certificate = isinstance(cause, ssl.SSLCertVerificationError)
            remedy = "; give your own CA with ca_file or SSL_CERT_FILE" if bad_certificate else ""
            message = f"no TLS with {without_query(self.url)}: {cause}{remedy}"
            raise DialFailed(message, hopeless=bad_certificate) from None
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return tls


async def _connect(host: str, port: int, what: str) -> trio.SocketStream:
    try:
        return await trio.open_tcp_stream(host, port)  # sets TCP_NODELAY
    except OSError as error:
        raise DialFailed(f"cannot reach {what}: {_reason(error)}") from None
    except UnicodeError:  # what Python says of a label over 63 characters, before it asks anybody
        raise DialFailed(f"cannot reach {what}: {host!r} is no host name", hopeless=True) from None


def _reason(error: OSError) -> str:
    """Return why a connection failed, without the wrapping."""
    cause: BaseException = error
    while isinstance(cause.__cause__, BaseExceptionGroup):
        cause = cause.__cause__.exceptions[0]
    if isinstance(cause.__cause__, OSError):
        cause = cause.__cause__
    errno = getattr(cause, "errno", None)
    # trio puts the address into an error's text, where it is said already; the resolver's numbers are negative.
    return os.strerror(errno) if errno and errno > 0 else str(getattr(cause, "strerror", None) or cause)


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a verifying context: the system's certificates, SSL_CERT_FILE's, or those of `ca_file`."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise DialFailed(f"ca_file {ca_file!r} cannot be used: {error}", hopeless=True) from None
    if ca_file is None and "SSL_CERT_FILE" not in os.environ and not context.get_ca_certs():
        context.load_verify_locations(
            cafile=certifi.where()
        )  # a Python built without the system's certificates
    return context


def proxy_for(host: str, port: int, *, secure: bool) -> str | None:
    """Return the proxy that the environment names for a host, as a URL; None to go directly."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get("https" if secure else "http") or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(f"{host}:{port}") or urllib.request.proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy_address(proxy: str) -> tuple[str, int, str | None]:
    """Return host, port and the Basic credentials of a proxy's URL."""
    parts = urlsplit(proxy)
    try:
        port = parts.port or 80
    except ValueError:
        raise DialFailed("the proxy's port is not a number; use http://host:port", hopeless=True) from None
    if parts.scheme != "http" or not parts.hostname:
        raise DialFailed(
            f"proxy scheme {parts.scheme!r} is not supported; use http://host:port", hopeless=True
        )
    if parts.username is None:
        return parts.hostname, port, None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return parts.hostname, port, base64.b64encode(pair.encode()).decode()


async def _through_proxy(proxy: str, host: str, port: int) -> trio.abc.Stream:
    proxy_host, proxy_port, credentials = _proxy_address(proxy)
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    stream = await _connect(proxy_host, proxy_port, f"the proxy {proxy_host}:{proxy_port}")
    try:
        headers = [("Host", target)]
        if credentials is not None:
            headers.append(("Proxy-Authorization", f"Basic {credentials}"))
        http = h11.Connection(h11.CLIENT)
        await stream.send_all(http.send(h11.Request(method="CONNECT", target=target, headers=headers)))
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(READ_SIZE))
            elif isinstance(event, h11.Response):
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise DialFailed(f"the proxy {proxy_host} closed the connection")
        if not 200 <= event.status_code < 300:
            message = f"the proxy {proxy_host} answered HTTP {event.status_code} to CONNECT {target}"
            said = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            raise DialFailed(
                message, retry_after=retry_after(said, time.time()), hopeless=event.status_code == 407
            )
    except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
        await trio.aclose_forcefully(stream)
        raise DialFailed(f"the proxy {proxy_host} does not speak HTTP: {error}") from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream

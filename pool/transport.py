"""The stream under a WebSocket: TCP, directly or through an HTTP proxy, and TLS."""

from __future__ import annotations

import base64
import os
import ssl
import urllib.request
from urllib.parse import unquote, urlsplit

import certifi
import h11
import trio
from attrs import define, field

from pool.errors import DialFailed

READ_SIZE = 64 * 1024


def without_query(url: str) -> str:
    """Return a URL as it may be shown: a query could hold a token."""
    return url.partition("?")[0]


@define(eq=False)
class Transport:
    """Connects to the host of a ws:// or wss:// URL. Builds its TLS context once: it takes milliseconds."""

    url: str
    ca_file: str | None = None
    use_proxy: bool = True
    _context: ssl.SSLContext | None = field(default=None, init=False)

    async def __call__(self) -> trio.abc.Stream:
        """Connect.

        Raises:
            DialFailed: it could not be done.
        """
        parts = urlsplit(self.url)
        secure = parts.scheme == "wss"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        proxy = proxy_for(host, port, secure=secure) if self.use_proxy else None
        try:
            if proxy is None:
                stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)  # sets TCP_NODELAY
            else:
                stream = await _through_proxy(proxy, host, port)
        except OSError as error:
            raise DialFailed(f"cannot reach {without_query(self.url)}: {_reason(error)}") from None
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


def _reason(error: OSError) -> str:
    """Return why a connection failed, without the wrapping."""
    cause: BaseException = error
    while isinstance(cause.__cause__, BaseExceptionGroup):
        cause = cause.__cause__.exceptions[0]
    if isinstance(cause.__cause__, OSError):
        cause = cause.__cause__
    return str(getattr(cause, "strerror", None) or cause)


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


async def _through_proxy(proxy: str, host: str, port: int) -> trio.abc.Stream:
    parts = urlsplit(proxy)
    if parts.scheme != "http" or not parts.hostname:
        raise DialFailed(
            f"proxy scheme {parts.scheme!r} is not supported; use http://host:port", hopeless=True
        )
    stream = await trio.open_tcp_stream(parts.hostname, parts.port or 80)
    try:
        headers = [("Host", f"{host}:{port}")]
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers.append(("Proxy-Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"))
        http = h11.Connection(h11.CLIENT)
        request = h11.Request(method="CONNECT", target=f"{host}:{port}", headers=headers)
        await stream.send_all(http.send(request))
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(READ_SIZE))
            elif isinstance(event, h11.Response):
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise DialFailed(f"the proxy {parts.hostname} closed the connection")
        if not 200 <= event.status_code < 300:
            raise DialFailed(
                f"the proxy {parts.hostname} answered HTTP {event.status_code} to CONNECT {host}:{port}"
            )
    except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
        await trio.aclose_forcefully(stream)
        raise DialFailed(f"the proxy {parts.hostname} does not speak HTTP: {error}") from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream

"""On real sockets of the loopback: TCP, TLS, proxies, and messages of size."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
import trio
import trustme

from pool import DialFailed, Endpoint, FrameTooLarge, Pool, PoolSettings, open_pool
from pool.transport import Transport, proxy_for, tls_context
from pool.wire.events import ResponseCreate
from tests.support.pool_server import turn
from tests.support.sockets import PROXY_VARIABLES, Proxy, proxying, serving

SETTINGS = PoolSettings(min_idle=0, dial_attempts=1, dial_timeout=10)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority nobody knows."""
    return trustme.CA()


def serving_tls(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def ca_file(authority: trustme.CA, folder: Path) -> str:
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def endpoint(port: int, scheme: str = "ws", host: str = "127.0.0.1") -> Endpoint:
    return Endpoint(name="loopback", url=f"{scheme}://{host}:{port}/v1/responses")


async def one_turn(point: Endpoint, settings: PoolSettings = SETTINGS) -> str | None:
    async with open_pool(point, settings) as pool, pool.lease() as lease:
        return (await turn(lease)).response_id


async def refused(point: Endpoint, settings: PoolSettings = SETTINGS) -> DialFailed:
    async with open_pool(point, settings) as pool:
        with pytest.raises(DialFailed) as caught:
            await pool.acquire()
    return caught.value


def _socket_of(pool: Pool) -> trio.SocketStream:
    (connection,) = pool._keeper.connections.values()
    stream = connection.wire._line._transport  # type: ignore[union-attr]  # the wire of a real dial
    assert isinstance(stream, trio.SocketStream)
    return stream


async def test_a_turn_over_tcp_without_delay() -> None:
    async with serving() as port, open_pool(endpoint(port), SETTINGS) as pool, pool.lease() as lease:
        assert (await turn(lease)).response_id == "resp_1"
        stream = _socket_of(pool)
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_cancelled_from_outside_it_goes_soon_and_blames_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as port:
        pools: list[Pool] = []
        with trio.CancelScope() as scope:
            async with open_pool(endpoint(port), SETTINGS) as pool:
                async with pool.lease() as lease:
                    await turn(lease)
                pools.append(pool)
                cancelled = trio.current_time()
                scope.cancel()
                await trio.sleep_forever()
        assert trio.current_time() - cancelled < SETTINGS.close_grace / 2
        assert (pools[0].stats().lost, pools[0].stats().closed) == (0, 1)
        assert not [record for record in caplog.records if record.name.startswith("warmline")]


async def test_a_message_of_several_mebibytes_comes_in_whole() -> None:
    async with serving() as port, open_pool(endpoint(port), SETTINGS) as pool, pool.lease() as lease:
        finished = await turn(lease, fields={"size": 5 * 2**20})
        assert len(finished.output[0]["text"]) == 5 * 2**20


async def test_a_message_just_under_the_cap_goes_out_whole_and_one_over_it_not_at_all() -> None:
    async with (
        serving() as port,
        open_pool(endpoint(port).with_(frame_cap=2**20), SETTINGS) as pool,
        pool.lease() as lease,
    ):
        assert (await turn(lease, "x" * (2**20 - 100))).status == "completed"
        before = pool.stats().bytes_sent
        with pytest.raises(FrameTooLarge) as caught:
            await lease.send(ResponseCreate(input="x" * 2**20))
        assert caught.value.limit == 2**20
        assert pool.stats().bytes_sent == before
        assert (await turn(lease)).status == "completed", "the connection has not noticed"


async def test_nobody_listens_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        error = await refused(endpoint(port))
    assert str(error) == f"cannot reach ws://127.0.0.1:{port}/v1/responses: Connection refused"
    assert (error.status, error.hopeless) == (None, False)


async def test_a_name_that_is_none() -> None:
    error = await refused(endpoint(1, host="x" * 64 + ".test"))
    assert error.hopeless
    assert "is no host name" in str(error)


# TLS.


async def test_tls_with_a_ca_of_ones_own(authority: trustme.CA, tmp_path: Path) -> None:
    settings = SETTINGS.with_(ca_file=ca_file(authority, tmp_path))
    async with serving(serving_tls(authority)) as port:
        assert await one_turn(endpoint(port, "wss"), settings) == "resp_1"


async def test_tls_with_the_ca_of_the_environment(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file(authority, tmp_path))
    async with serving(serving_tls(authority)) as port:
        assert await one_turn(endpoint(port, "wss")) == "resp_1"


async def test_an_unknown_ca_is_hopeless_and_says_what_to_do(authority: trustme.CA) -> None:
    async with serving(serving_tls(authority)) as port:
        error = await refused(endpoint(port, "wss"))
    assert error.hopeless
    assert str(error).startswith(f"no TLS with wss://127.0.0.1:{port}/v1/responses: ")
    assert "certificate verify failed" in str(error)
    assert str(error).endswith("; give your own CA with ca_file or SSL_CERT_FILE")


async def test_a_certificate_for_another_host(authority: trustme.CA, tmp_path: Path) -> None:
    settings = SETTINGS.with_(ca_file=ca_file(authority, tmp_path))
    async with serving(serving_tls(authority, "elsewhere.test")) as port:
        assert "not valid for '127.0.0.1'" in str(await refused(endpoint(port, "wss"), settings))


async def test_a_server_that_does_not_speak_tls() -> None:
    async with serving() as port:
        error = await refused(endpoint(port, "wss"))
    assert not error.hopeless
    assert str(error).startswith("no TLS with wss://")


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    async with serving() as port:
        error = await refused(endpoint(port, "wss"), SETTINGS.with_(ca_file=str(path)))
    assert error.hopeless
    assert f"ca_file {str(path)!r} cannot be used" in str(error)


async def test_a_tls_handshake_that_never_ends_is_given_up() -> None:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, _say_nothing, [listener])
        error = await refused(endpoint(port, "wss"), SETTINGS.with_(dial_timeout=0.05))
        assert "no answer within 0.05 s" in str(error)
        nursery.cancel_scope.cancel()


async def _say_nothing(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


def test_a_python_without_the_systems_certificates_gets_some(monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(*, cafile: str | None) -> ssl.SSLContext:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(ssl, "create_default_context", bare)
    assert len(tls_context(None).get_ca_certs()) > 50
    assert tls_context("given").get_ca_certs() == []


async def test_the_tls_context_is_built_once(authority: trustme.CA, tmp_path: Path) -> None:
    async with serving(serving_tls(authority)) as port:
        transport = Transport(endpoint(port, "wss").url, ca_file(authority, tmp_path))
        streams = [await transport(), await transport()]
        for stream in streams:
            await trio.aclose_forcefully(stream)
        (tmp_path / "ca.pem").unlink()
        await trio.aclose_forcefully(await transport())


# Proxies.


async def test_through_a_proxy_with_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as port, proxying(Proxy(port)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:p%40ss@127.0.0.1:{proxy.port}")
        assert await one_turn(Endpoint(name="far", url="ws://far.test/v1/responses")) == "resp_1"
        (request,) = proxy.requests
        assert (request.method, request.target) == (b"CONNECT", b"far.test:80")
        assert proxy.credentials() == [b"Basic YW5uOnBAc3M="]


async def test_tls_through_a_proxy(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.with_(ca_file=ca_file(authority, tmp_path))
    async with serving(serving_tls(authority, "far.test")) as port, proxying(Proxy(port)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")
        assert await one_turn(Endpoint(name="far", url="wss://far.test/v1"), settings) == "resp_1"
        assert proxy.requests[0].target == b"far.test:443"
        assert proxy.credentials() == []


async def test_an_address_of_version_6_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as port, proxying(Proxy(port)) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert await one_turn(Endpoint(name="far", url="ws://[2001:db8::1]:8080/v1")) == "resp_1"
        assert proxy.requests[0].target == b"[2001:db8::1]:8080"


@pytest.mark.parametrize("exempt", ["127.0.0.1", "localhost, 127.0.0.1", "*"])
async def test_no_proxy_goes_directly(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    async with serving() as port, proxying(Proxy(status=502)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", exempt)
        assert await one_turn(endpoint(port)) == "resp_1"
        assert proxy.requests == []


async def test_proxies_can_be_ignored_altogether(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with serving() as port:
        assert await one_turn(endpoint(port), SETTINGS.with_(use_proxy=False)) == "resp_1"


@pytest.mark.parametrize(("status", "hopeless"), [(407, True), (403, False), (502, False)])
async def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, status: int, hopeless: bool) -> None:
    async with proxying(Proxy(status=status)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:hunter2@127.0.0.1:{proxy.port}")
        error = await refused(Endpoint(name="far", url="ws://far.test/v1"))
    assert str(error) == f"the proxy 127.0.0.1 answered HTTP {status} to CONNECT far.test:80"
    assert error.hopeless is hopeless


@pytest.mark.parametrize("noise", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 "])
async def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch, noise: bytes) -> None:
    async with proxying(Proxy(noise=noise)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        error = await refused(Endpoint(name="far", url="ws://far.test/v1"))
    assert str(error).startswith("the proxy 127.0.0.1 ")


async def test_a_proxy_that_nobody_runs_is_named_and_not_the_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://ann:hunter2@127.0.0.1:1")
    error = await refused(Endpoint(name="far", url="ws://far.test/v1"))
    assert str(error) == "cannot reach the proxy 127.0.0.1:1: Connection refused"


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("socks5://ann:hunter2@127.0.0.1:1", "proxy scheme 'socks5' is not supported; use http://host:port"),
        ("http://ann:hunter2@127.0.0.1:none", "the proxy's port is not a number; use http://host:port"),
        ("http://ann:hunter2@", "proxy scheme 'http' is not supported; use http://host:port"),
    ],
)
async def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str, message: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    error = await refused(Endpoint(name="far", url="ws://far.test/v1"))
    assert (str(error), error.hopeless) == (message, True)


def test_which_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for("far.test", 443, secure=True) is None
    monkeypatch.setenv("ALL_PROXY", "all.test:1")
    assert proxy_for("far.test", 443, secure=True) == "http://all.test:1"
    monkeypatch.setenv("HTTPS_PROXY", "http://secure.test:2")
    assert proxy_for("far.test", 443, secure=True) == "http://secure.test:2"
    assert proxy_for("far.test", 80, secure=False) == "http://all.test:1"
    monkeypatch.setenv("NO_PROXY", ".test:443")
    assert proxy_for("far.test", 443, secure=True) is None
    assert proxy_for("far.test", 444, secure=True) == "http://secure.test:2"

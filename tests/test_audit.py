"""The audit of `make check`: promised are that an advisory about what warmline runs on fails it, that nobody to ask
does not, and that it takes no longer than it was told. The database is one of our own, on loopback.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pool.wire.codec import from_json, to_json
from tests import audit

PACKAGES = {"h11": "0.14.0", "click": "8.4.0"}
ADVISORY = {
    "id": "GHSA-test",
    "aliases": ["CVE-2025-0"],
    "summary": "It is bad.",
    "affected": [
        {
            "package": {"name": "h11", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "0.16.0"}]}],
        }
    ],
    "published": "2025-04-24T00:00:00Z",
}
Answer = Callable[[dict[str, Any]], bytes | None]


@contextmanager
def database(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> Iterator[list[str]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = from_json(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(query["package"]["name"])
            body = answer(query)
            if body is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv(audit.URL_VARIABLE, f"http://127.0.0.1:{server.server_port}/v1/query")
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "needed", lambda: PACKAGES)


def nothing(_query: dict[str, Any]) -> bytes:
    return b"{}"


def of_h11(query: dict[str, Any]) -> bytes:
    return to_json({"vulns": [ADVISORY] if query["package"]["name"] == "h11" else []})


def test_no_advisory_is_known(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with database(monkeypatch, nothing) as asked:
        assert audit.main(["--seconds", "60"]) == 0
    assert sorted(asked) == sorted(PACKAGES)
    assert capsys.readouterr().out == "audit: no advisory about the 2 distributions that warmline runs on\n"


def test_an_advisory_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with database(monkeypatch, of_h11):
        assert audit.main(["--seconds", "60"]) == 1
    assert capsys.readouterr().out == "audit: h11 0.14.0: CVE-2025-0, GHSA-test; mended in 0.16.0\n"


@pytest.mark.parametrize("answer", [lambda _: b"<html>", lambda _: None], ids=["page", "hung up"])
def test_nonsense_is_no_advisory(
    answer: Answer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with database(monkeypatch, answer):
        assert audit.main(["--seconds", "60"]) == 0
    assert capsys.readouterr().out.startswith("audit: skipped, ")


def test_nobody_to_ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv(audit.URL_VARIABLE, f"http://127.0.0.1:{port}/v1/query")
    assert audit.main(["--seconds", "60"]) == 0
    assert capsys.readouterr().out == "audit: skipped, the database cannot be reached\n"


def test_it_takes_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        monkeypatch.setenv(audit.URL_VARIABLE, f"http://127.0.0.1:{silent.getsockname()[1]}/v1/query")
        assert audit.main(["--seconds", "0.5"]) == 0
    assert capsys.readouterr().out == "audit: skipped, there was no whole answer within 0.5 s\n"


def test_it_asks_about_everything_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = audit.needed()
    assert {"h11", "trio", "idna", "cryptography", "pillow", "urllib3", "coredis"} <= found.keys()
    assert not {"warmline", "pytest", "ruff", "mypy", "openai"} & found.keys()

"""A certificate for the benchmarks that encrypt: a server's, and what its clients have to trust."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trustme
from attrs import frozen


@frozen
class Trust:
    """Files of a certificate authority made for the moment, and a server's certificate by it."""

    ca: str
    options: tuple[str, ...]  # of the server

    @property
    def environ(self) -> Mapping[str, str]:
        """An environment whose clients trust it."""
        return {**os.environ, "SSL_CERT_FILE": self.ca}


@contextmanager
def trust() -> Iterator[Trust]:
    """Make one for 127.0.0.1."""
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        server = authority.issue_cert("127.0.0.1")
        ca, cert, key = (str(Path(folder) / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(ca)
        server.private_key_pem.write_to_path(key)
        Path(cert).write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
        yield Trust(ca, ("--tls-cert", cert, "--tls-key", key))

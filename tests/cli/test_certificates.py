"""The files of `--tls-cert` and `--tls-key`: which of them cannot be used, and why."""

from __future__ import annotations

import ssl
from pathlib import Path

import click
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from scheduler.commands.certificates import tls_context


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a certificate and its key, another's key, the key behind a password, and no PEM."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    ours, other = (authority.issue_cert("127.0.0.1") for _ in "ab")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in ours.cert_chain_pems))
    (folder / "key.pem").write_bytes(ours.private_key_pem.bytes())
    (folder / "other.pem").write_bytes(other.private_key_pem.bytes())
    locked = load_pem_private_key(ours.private_key_pem.bytes(), None)
    (folder / "locked.pem").write_bytes(
        locked.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    (folder / "junk.pem").write_text("no certificate")
    return folder


def test_a_pair_is_taken(folder: Path) -> None:
    assert isinstance(tls_context(folder / "cert.pem", folder / "key.pem"), ssl.SSLContext)
    assert tls_context(None, None) is None


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("cert.pem", None, "belong together"),
        (None, "key.pem", "belong together"),
        ("none.pem", "key.pem", "--tls-cert .*none.pem cannot be read: No such file"),
        ("cert.pem", "none.pem", "--tls-key .*none.pem cannot be read: No such file"),
        (
            "cert.pem",
            "other.pem",
            "--tls-key .*other.pem is not the key of the certificate in --tls-cert .*cert.pem",
        ),
        ("cert.pem", "locked.pem", "--tls-key .*locked.pem needs a password"),  # and nobody is asked for it
        ("junk.pem", "key.pem", "must hold a PEM certificate"),
        ("cert.pem", "junk.pem", "its PEM private key"),
        ("cert.pem", "cert.pem", "its PEM private key"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, cert: str | None, key: str | None, said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        tls_context(None if cert is None else folder / cert, None if key is None else folder / key)

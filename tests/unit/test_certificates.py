"""The tests' own certificates pass strict verification, the default since Python 3.13."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.support.redis_family import certificates


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Perform a TLS handshake in memory.

    Raises:
        SSLError: one side refuses the other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)


@pytest.fixture
def contexts(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority, certificate, key = certificates(tmp_path)
    client = ssl.create_default_context(cafile=str(authority))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
    server.load_cert_chain(certificate, key)
    return client, server


def test_client_verifies_server_certificate_strictly(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    shake_hands(*contexts, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
        shake_hands(*contexts, "127.0.0.2")


def test_server_verifies_client_certificate_strictly(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    client, server = contexts
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    shake_hands(client, server, "127.0.0.1")

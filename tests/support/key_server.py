"""An issuer's JWKS endpoint that a test can make hang."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support import TIMEOUT


class KeyServer:
    """Serves public keys as a JWKS over HTTP, or leaves requests unanswered."""

    def __init__(self, keys: dict[str, Any]) -> None:
        self.keys = keys
        self.requests = 0
        self.answers = threading.Event()
        self.answers.set()
        self.url = ""
        self.redirects_to = ""
        self.document: bytes | None = None  # served instead of the keys

    def token(self, kid: str, key: Any = None) -> str:
        claims = {"sub": "alice", "exp": int(time.time()) + 60}
        key = self.keys[kid] if key is None else key
        return jwt.encode(claims, key, algorithm="ES256", headers={"kid": kid})

    def body(self) -> bytes:
        if self.document is not None:
            return self.document
        sets = [
            {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": kid,
             "use": "sig", "alg": "ES256"}
            for kid, key in self.keys.items()
        ]  # fmt: skip
        return json.dumps({"keys": sets}).encode()


def private_key() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


def pems(key: Any) -> tuple[str, str]:
    """Return a key as PEM: the private key, and its public key."""
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


@contextmanager
def key_server(keys: dict[str, Any]) -> Iterator[KeyServer]:
    issuer = KeyServer(keys)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.requests += 1
            issuer.answers.wait(TIMEOUT)
            body = issuer.body()
            try:
                self.send_response(302 if issuer.redirects_to else 200)
                if issuer.redirects_to:
                    self.send_header("Location", issuer.redirects_to)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the client has given up

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_port}/jwks.json"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield issuer
        finally:
            issuer.answers.set()
            server.shutdown()
            thread.join()

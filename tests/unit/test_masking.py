"""Secrets are masked in printed and logged text."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcast.errors import PublishFailed, TransportUnavailable
from jobcast.masking import is_secret_name, mask, mask_url, remember

SECRET = "S3CR3T"
_ODD_CHARACTERS = st.sampled_from("/?#@:;,&=%+ []{}'\"<>|\\^~`\u00e9\n")
ODD = st.text(_ODD_CHARACTERS | st.characters(codec="utf-8"), max_size=6)
SCHEMES = st.sampled_from(
    ["redis", "rediss", "redis+sentinel", "valkeys+cluster", "unix", "amqp", "amqps", "https"]
)
USERS = st.sampled_from(["", "bob", "bob.smith-1", "b@b", "café", SECRET])
HOSTS = st.sampled_from(["", "h", "h:1", "a:1,b,c:3", "[::1]:7", "h1;amqp://u:p@h2", "h/0?x=@y"])
PATHS = st.sampled_from(["", "/", "//", "/0", "/0/main", "/run/r.sock"])
NAMES = st.sampled_from(
    ["password", "sentinel_password", "ssl_password", "client_secret", "access_token", "api_key",
     "API-Key", "ssl_keyfile_password", "X-Amz-Credential", "passw%6Frd", "sentinel%5Fpassword"]
)  # fmt: skip


@st.composite
def secrets(draw: st.DrawFn) -> str:
    """Generate secrets with odd characters between two recognisable ends."""
    return f"{SECRET}{draw(ODD)}{SECRET}"


@given(SCHEMES, USERS, secrets(), HOSTS, PATHS)
def test_mask_url_hides_passwords(
    scheme: str, user: str, secret: str, host: str, path: str
) -> None:
    assert SECRET not in mask_url(f"{scheme}://{user}:{secret}@{host}{path}").removeprefix(
        f"{scheme}://{user}:"
    )
    token = secret.replace(":", "")  # the part before a colon would be the user name
    assert SECRET not in mask_url(f"{scheme}://{token}@{host}{path}")
    assert SECRET not in mask_url(f"{scheme}://{token}:@h{path}")


@given(SCHEMES, HOSTS, PATHS, st.lists(st.tuples(NAMES, secrets()), min_size=1), st.booleans())
def test_mask_url_hides_secret_parameters(
    scheme: str, host: str, path: str, parameters: list[tuple[str, str]], encoded: bool
) -> None:
    query = "&db=1&".join(
        f"{name}={quote(secret) if encoded else secret.replace('&', '')}"
        for name, secret in parameters
    )
    url = f"{scheme}://bob:{SECRET}@{host}{path}?{query}"
    assert SECRET not in mask_url(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0?socket_timeout=3", "redis://h:6379/0?socket_timeout=3"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("redis://bob:pw@h:1/0", "redis://bob:***@h:1/0"),
        ("https://token@h/keys", "https://***@h/keys"),
        ("https://apikey:@h/keys", "https://***@h/keys"),
        ("amqp://bob:p/w@h:5672//", "amqp://bob:***@h:5672//"),
        (
            "redis+sentinel://bob:pw@s1,s2:2/0/main?sentinel_password=x&db=1&password=y",
            "redis+sentinel://bob:***@s1,s2:2/0/main?sentinel_password=***&db=1&password=***",
        ),
        ("rediss://h/0?ssl_password=x&ssl_ca_certs=a.pem", "rediss://h/0?ssl_password=***&ssl_ca_certs=a.pem"),
        ("https://h/keys?page=1&api_key=x#top", "https://h/keys?page=1&api_key=***"),
        ("", ""),
        ("memory://", "memory://"),
    ],
)  # fmt: skip
def test_mask_url_keeps_the_rest_of_a_url(url: str, shown: str) -> None:
    assert mask_url(url) == shown
    assert mask(f"no answer of {shown} yet") == f"no answer of {shown} yet"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://a:b@h1;amqp://c:d@h2//", "amqp://***@h1;amqp://***@h2//"),
        ("see https://example.com/@bob/1 and https://h:80/a@b", None),
        ("https://[::1]:8000/@bob or mail bob@example.com", None),
        ("https://bob:pw@h/@carol", "https://***@h/@carol"),
        ("'redis://:p?w@h/0', (\"amqp://u:p#w@h\")", "'redis://***@h/0', (\"amqp://***@h\")"),
        ("GET https://api.example.com/v1?api_key=abc&q=1", "GET https://api.example.com/v1?api_key=***&q=1"),
        ("no <redis://bob:pw@h/0>: refused", "no <redis://***@h/0>: refused"),
        ("no URL at all: a@b?key=value", None),
    ],
)  # fmt: skip
def test_mask_hides_secrets_of_urls_in_a_text(text: str, shown: str | None) -> None:
    assert mask(text) == (text if shown is None else shown)


def test_is_secret_name_recognises_secrets() -> None:
    for name in (
        "jwt_secret",
        "JWT_SECRETS",
        "sentinel_password",
        "token",
        "api_key",
        "jwt_private_key",
    ):
        assert is_secret_name(name)
    for name in ("url", "host", "jwt_public_key", "jwt_public_keys", "max_jobs", "prefix"):
        assert not is_secret_name(name)


def test_remembered_secrets_are_masked_without_a_url() -> None:
    remember("redis://bob:p%40ss%2Fword@h/0?sentinel_password=sentinel%20pw-1", "signing-secret")
    echo = "unknown command `HELLO`, with args: `AUTH` `p@ss/word`, `sentinel pw-1`, signing-secret"
    expected = "unknown command `HELLO`, with args: `AUTH` `***`, `***`, ***"
    assert mask(echo) == expected
    assert str(TransportUnavailable(echo)) == expected
    assert str(PublishFailed(echo, ())) == expected


def test_short_passwords_are_not_masked_in_texts() -> None:
    remember("redis://bob:on@h")
    assert mask("the connection is gone") == "the connection is gone"

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobcast.errors import SettingsError
from jobcast.masking import mask
from jobcast.settings import Settings, misspelt, use_defaults
from jobcast.transports import Retention

SECRET = "s" * 32


def test_all_settings_except_keys_have_defaults() -> None:
    settings = Settings.load({})
    assert settings.url == "redis://localhost:6379/0"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.history_ttl, settings.history_size) == (3600, 1000)
    assert settings.retention == Retention(feed_size=1000, summary_ttl=7 * 24 * 3600)
    assert settings.cors_origins == ()
    assert (settings.workers, settings.drain_seconds) == (1, 5)
    assert settings.send_buffer == 1024 * 1024
    assert settings.metrics is False
    with pytest.raises(SettingsError, match=re.escape("JOBCAST_JWT_SECRET is not set")):
        settings.require_authentication()


def test_settings_are_read_from_the_given_mapping() -> None:
    settings = Settings.load(
        {
            "JOBCAST_URL": "rediss://cache:6380/1",
            "JOBCAST_JWT_SECRET": SECRET,
            "JOBCAST_CORS_ORIGINS": "https://a.example, https://b.example:8443",
            "JOBCAST_LOG_LEVEL": "WARNING",
            "JOBCAST_LOG_LOGGERS": "app,lib.deep",
            "JOBCAST_PORT": " 9000 ",
            "JOBCAST_AUTHORIZE": "rules.jobs:allow",
            "JOBCAST_JWT_AUDIENCE": "",
            "PORT": "1",
        }
    )
    settings.require_authentication()
    assert settings.cors_origins == ("https://a.example", "https://b.example:8443")
    assert settings.log_level == "warning"
    assert settings.log_loggers == ("app", "lib.deep")
    assert settings.port == 9000
    assert settings.jwt_audience is None
    assert settings.algorithms == ("HS256",)


@pytest.mark.parametrize(
    ("value", "path"),
    [("true", "/console"), ("1", "/console"), ("off", ""), ("", ""), ("/ops/jobs/", "/ops/jobs")],
)
def test_console_has_a_path_or_is_off(value: str, path: str) -> None:
    assert Settings.load({"JOBCAST_CONSOLE": value}).console == path


def test_environment_overrides_celery_configuration() -> None:
    conf = {
        "jobcast_url": "redis://conf/1",
        "jobcast_history_size": 50,
        "jobcast_log_loggers": ["a"],
    }
    settings = Settings.load({"JOBCAST_URL": "redis://env/2"}, conf)
    assert settings.url == "redis://env/2"
    assert settings.history_size == 50
    assert settings.log_loggers == ("a",)


PEM = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CONSOLE", "/", "should be a path that the server does not use itself"),
        ("CONSOLE", "/jobs/console", "should be a path that the server does not use itself"),
        ("CONSOLE", "/a b", "should be a path such as"),
        ("CONSOLE", "console", "should be true or a path such as /console"),
        ("URL", "localhost:6379", "should be a URL that begins with one of redis://"),
        ("URL", "http://localhost", "should be a URL"),
        ("URL", "redis://localhost:port/0", "a usable port"),
        ("URL", "redis://localhost:70000/0", "a usable port"),
        ("URL", "redis://localhost/abc", "the number of a database, not 'abc'"),
        ("URL", "redis://localhost/0/1", "the number of a database, not '0/1'"),
        ("URL", "redis://localhost?db=-1", "the number of a database, not -1"),
        ("URL", "redis://localhost?db=x", "'db'"),
        ("URL", "redis://localhost/0?nonsense=1", "an option that redis-py does not take"),
        ("URL", "redis://localhost?protocol=9", "an option that redis-py does not take"),
        ("URL", "redis://localhost?socket_timeout=x", "'socket_timeout'"),
        ("URL", "unix:///run/r.sock?nonsense=1", "an option that redis-py does not take"),
        ("URL", "redis+sentinel://a/x/m", "the number of a database, not 'x'"),
        ("URL", "redis+sentinel://a/0/m?nonsense=1", "an option that redis-py does not take"),
        ("URL", "redis+cluster://a?nonsense=1", "an option that redis-py does not take"),
        ("URL", "redis+cluster://a?db=2", "should name no database"),
        ("URL", "amqp://h//?nonsense=1", "an option that kombu does not take"),
        ("JWT_SECRET", "-----BEGIN PUBLIC KEY-----\nMFkw", "JOBCAST_JWT_PUBLIC_KEY takes"),
        ("JWT_SECRET", "ssh-rsa " + "A" * 40, "JOBCAST_JWT_PUBLIC_KEY takes"),
        ("JWT_SECRET", "short", "at least 32 bytes"),
        ("JWT_PUBLIC_KEY", "ssh-rsa AAAA", "public key in PEM"),
        ("JWT_SECRETS", f"{SECRET} short", "at least 32 bytes"),
        ("JWT_SECRETS", f"a={SECRET},a={SECRET}", "two keys with the key id 'a'"),
        ("JWT_PUBLIC_KEYS", "2026-01=AAAA", "public keys in PEM one after the other"),
        ("JWT_PUBLIC_KEYS", f"{PEM} and more", "public keys in PEM one after the other"),
        ("JWT_PUBLIC_KEYS", f"a={PEM}\na={PEM}", "two keys with the key id 'a'"),
        ("JWT_PRIVATE_KEY", PEM, "should be a private key in PEM"),
        ("JWT_PRIVATE_KEY", PEM.replace("PUBLIC", "ENCRYPTED PRIVATE"), "is encrypted"),
        ("PUBLIC_URL", "jobs.example.com", "should be a URL such as https://"),
        ("PUBLIC_URL", "https://a.example/?b", "should be a URL such as https://"),
        ("JWT_MAX_LIFETIME", "0", "seconds from 1"),
        ("JWKS_URL", "/keys", "should be a URL such as https://"),
        ("JWT_ALGORITHMS", "HS256,none", "has 'none'"),
        ("CORS_ORIGINS", "*", "may not be *"),
        ("CORS_ORIGINS", "app.example.com", "an origin is a scheme"),
        ("CORS_ORIGINS", "https://app.example.com/path", "an origin is a scheme"),
        ("INSECURE_ANY_ORIGIN", "perhaps", "should be true or false"),
        ("AUTHORIZE", "rules.allow", "should be package.module:function"),
        ("HISTORY_TTL", "0", "from 1 to"),
        ("HISTORY_SIZE", "many", "whole number of events"),
        ("FEED_SIZE", "-1", "whole number of jobs from 0"),
        ("SUMMARY_TTL", "week", "whole number of seconds from 1"),
        ("RESULT_LIMIT", "1", "from 256"),
        ("MAX_JOBS", "-1", "from 1"),
        ("PORT", "70000", "from 0 to 65535"),
        ("PORT", "tcp://10.0.0.1:80", "enableServiceLinks"),
        ("URL", "redis+sentinel://a,b/0", "the name of the service"),
        ("URL", "redis+sentinel://a:x/0/m", "hosts as host:port"),
        ("URL", "redis+cluster://a,b/3", "should name no database"),
        ("URL", "amqp://", "a URL with a host"),
        ("URL", "amqp://h:99999//", "a usable port"),
        ("URL", "amqp://h//?channel=jobcast", "jobcast's own"),
        ("URL", "amqp://bob:hunter/2@h//", "should have one @, before the host: "),
        ("URL", "redis+sentinel://bob:hunter?2@h/0/m", "should have one @"),
        ("URL", "redis://h/0?password=hun@ter2", "should have one @"),
        ("JWKS_URL", "https://bob:hunter2@h/keys", "should have no user and password"),
        ("PREFIX", "shop{1}", "letters, digits and characters of _ - . : and not be 'shop{1}'"),
        ("PREFIX", "shop app", "letters, digits"),
        ("PREFIX", "café", "letters, digits"),
        ("PREFIX", "x" * 65, "1 to 64"),
        ("PREFIX", "shop*", "letters, digits"),
        ("PREFIX", "jobcast.events", "should not end with .events"),
        ("PREFIX", "jobcast.revocations", "should not end with .events"),
        ("WORKERS", "0", "processes from 1"),
        ("DRAIN_SECONDS", "-1", "seconds from 0"),
        ("SEND_BUFFER", "1000", "characters from 65536"),
        ("METRICS", "maybe", "should be true or false"),
        ("LOG_LEVEL", "loud", "should be one of off, debug"),
    ],
)
def test_error_names_the_wrong_setting(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)) as caught:
        Settings.load({f"JOBCAST_{name}": value})
    assert caught.value.name == f"JOBCAST_{name}"
    assert str(caught.value).startswith(f"JOBCAST_{name} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h", "redis://u:p@h:1/3", "redis://h?db=2", "unix:///run/r.sock?db=2",
        "rediss://h/1?ssl_ca_certs=/etc/r.pem&ssl_cert_reqs=none",
        "redis://h/0?max_connections=5&health_check_interval=3&client_name=x&socket_timeout=3",
        "valkeys+sentinel://u:p@a,b/0/m?sentinel_password=q&socket_timeout=3",
        "redis+cluster://a,b:7000/0?read_from_replicas=true",
        "amqps://u:p@h:5672/v?heartbeat=10", "amqp://h//?channel=stock", "memory://",
    ],
)  # fmt: skip
def test_url_may_have_options_of_its_driver(url: str) -> None:
    assert Settings.load({"JOBCAST_URL": url}).url == url


def test_stock_channel_must_differ_from_prefix() -> None:
    url = "amqp://h//?channel=jobcast"
    settings = Settings.load({"JOBCAST_URL": url, "JOBCAST_PREFIX": "shop:staging-1"})
    assert (settings.url, settings.prefix) == (url, "shop:staging-1")
    with pytest.raises(SettingsError, match=re.escape("should not have ?channel=shop")):
        Settings.load({"JOBCAST_URL": "amqp://h//?channel=shop", "JOBCAST_PREFIX": "shop"})


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_blank_value_counts_as_unset(blank: str) -> None:
    names = [f"JOBCAST_{field.upper()}" for field in Settings.__struct_fields__]
    assert Settings.load(dict.fromkeys(names, blank)) == Settings()
    conf = {"jobcast_host": "10.0.0.1", "jobcast_url": blank, "jobcast_log_loggers": []}
    settings = Settings.load({"JOBCAST_HOST": blank}, conf)
    assert (settings.host, settings.url) == ("10.0.0.1", Settings().url)


def test_file_variable_provides_the_value(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "key").write_text(f"{PEM}\n")
    (tmp_path / "url").write_text("redis://bob:hunter2@cache/1\r\n")
    (tmp_path / "port").write_text("9000")
    settings = Settings.load(
        {
            "JOBCAST_JWT_SECRET_FILE": str(tmp_path / "secret"),
            "JOBCAST_URL_FILE": str(tmp_path / "url"),
            "JOBCAST_PORT_FILE": str(tmp_path / "port"),
            "JOBCAST_JWT_SECRET": "",
        },
        {"jobcast_port": "1"},
    )
    assert (settings.jwt_secret, settings.port) == (SECRET, 9000)
    assert settings.url == "redis://bob:hunter2@cache/1"
    conf = {"jobcast_jwt_public_key_file": tmp_path / "key"}
    assert Settings.load({}, conf).jwt_public_key == PEM


@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_every_setting_accepts_a_file_variable(name: str, tmp_path: Path) -> None:
    path = tmp_path / "not there"
    variable = f"JOBCAST_{name.upper()}_FILE"
    with pytest.raises(SettingsError, match="which cannot be read: No such file") as caught:
        Settings.load({variable: str(path)})
    assert caught.value.name == variable
    assert str(path) in str(caught.value)


def test_error_names_an_unusable_file(tmp_path: Path) -> None:
    path = tmp_path / "value"
    cases = [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "UTF-8"), (b"short", "32 bytes")]
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(SettingsError, match=message) as caught:
            Settings.load({"JOBCAST_JWT_SECRET_FILE": str(path)})
        assert caught.value.name == "JOBCAST_JWT_SECRET_FILE"
    with pytest.raises(SettingsError, match="Is a directory"):
        Settings.load({"JOBCAST_JWT_SECRET_FILE": str(tmp_path)})


def test_value_and_file_variable_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("t" * 32)
    with pytest.raises(
        SettingsError, match="JOBCAST_JWT_SECRET and JOBCAST_JWT_SECRET_FILE are both set"
    ):
        Settings.load({"JOBCAST_JWT_SECRET": SECRET, "JOBCAST_JWT_SECRET_FILE": str(path)})
    # The environment overrides Celery's configuration.
    conf = {"jobcast_jwt_secret_file": str(path)}
    assert Settings.load({"JOBCAST_JWT_SECRET": SECRET}, conf).jwt_secret == SECRET


def test_kinds_of_keys_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="may not be set together"):
        Settings.load({"JOBCAST_JWT_SECRET": SECRET, "JOBCAST_JWT_PUBLIC_KEY": PEM})
    with pytest.raises(SettingsError, match="set together with JOBCAST_JWT_SECRETS: "):
        Settings.load({"JOBCAST_JWT_SECRET": SECRET, "JOBCAST_JWT_SECRETS": SECRET})
    with pytest.raises(SettingsError, match="does not fit the configured key"):
        Settings.load({"JOBCAST_JWT_PUBLIC_KEYS": PEM, "JOBCAST_JWT_ALGORITHMS": "HS256"})
    with pytest.raises(SettingsError, match="does not fit the configured key"):
        Settings.load({"JOBCAST_JWT_SECRET": SECRET, "JOBCAST_JWT_ALGORITHMS": "RS256"})
    # With an HMAC algorithm, the public key would serve as the shared secret.
    with pytest.raises(SettingsError, match="does not fit the configured key"):
        Settings.load({"JOBCAST_JWT_PUBLIC_KEY": PEM, "JOBCAST_JWT_ALGORITHMS": "ES256,HS256"})


def test_public_key_may_have_escaped_line_breaks() -> None:
    settings = Settings.load({"JOBCAST_JWT_PUBLIC_KEY": PEM.replace("\n", "\\n")})
    assert settings.jwt_public_key == PEM
    assert settings.algorithms == ("RS256", "ES256", "EdDSA")


def test_secrets_may_have_key_ids() -> None:
    padded = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0cw=="
    text = f"{SECRET}, 2026-01={SECRET}\n{padded} b.2={padded}"
    settings = Settings.load({"JOBCAST_JWT_SECRETS": text})
    assert settings.secrets == (
        (None, SECRET), ("2026-01", SECRET), (None, padded), ("b.2", padded),
    )  # fmt: skip
    assert settings.algorithms == ("HS256",)
    settings.require_authentication()
    assert Settings(jwt_secret=SECRET).secrets == ((None, SECRET),)
    conf = {"jobcast_jwt_secrets": [SECRET, f"old={SECRET}"]}
    assert Settings.load({}, conf).secrets == ((None, SECRET), ("old", SECRET))


def test_secret_with_key_id_is_masked_without_the_id_too() -> None:
    secret = "m" * 32
    Settings.load({"JOBCAST_JWT_SECRETS": f"2026-01={secret}"})
    assert secret not in mask(f"somebody logs {secret} here")


def test_public_keys_may_have_key_ids() -> None:
    for text in (f"{PEM}\n2026-01={PEM}", f"{PEM},2026-01={PEM}".replace("\n", "\\n")):
        settings = Settings.load({"JOBCAST_JWT_PUBLIC_KEYS": text})
        assert settings.public_keys == ((None, PEM), ("2026-01", PEM))
        assert settings.algorithms == ("RS256", "ES256", "EdDSA")
    assert Settings(jwt_public_key=PEM).public_keys == ((None, PEM),)


def test_wildcard_origin_requires_the_insecure_setting() -> None:
    environ = {"JOBCAST_CORS_ORIGINS": "*", "JOBCAST_INSECURE_ANY_ORIGIN": "true"}
    assert Settings.load(environ).cors_origins == ("*",)


def test_repr_masks_secrets() -> None:
    settings = Settings.load(
        {"JOBCAST_JWT_SECRETS": f"a={SECRET}", "JOBCAST_URL": "redis://bob:hunter2@cache/0"}
    )
    assert SECRET not in repr(Settings(jwt_secret=SECRET))
    for shown in (repr(settings), str(settings), f"{settings}", settings.masked_url):
        assert SECRET not in shown
        assert "hunter2" not in shown


class Later(Settings, frozen=True, kw_only=True):
    """Settings with a further secret field."""

    console_password: str | None = None


def test_repr_masks_every_field_with_a_secret_name() -> None:
    settings = Later(
        jwt_secret="hunter2",
        jwt_secrets=("hunter2", "hunter2"),
        console_password="hunter2",
        jwt_public_keys=PEM,
        jwks_url="https://h/keys?access_token=hunter2&page=1",
        url="redis+sentinel://bob:hunter2@a,b/0/m?sentinel_password=hunter2",
    )
    assert "hunter2" not in repr(settings)
    for name in ("jwt_secrets", "console_password"):
        assert f"{name}='***'" in repr(settings)
    assert "https://h/keys?access_token=***&page=1" in repr(settings)
    assert "BEGIN PUBLIC KEY" in repr(settings)
    assert "jwt_secret=None" in repr(Settings())


def test_misspelt_suggests_the_nearest_setting() -> None:
    environ = dict.fromkeys(
        [
            "JOBCAST_CORS_ORIGIN", "JOBCAST_JWT_SECRETFILE", "JOBCAST_JWT_SECERT_FILE",
            "JOBCAST_XYZZY", "JOBCAST_URL", "JOBCAST_URL_FILE", "JOBCAST_SERVED_ON",
            "JOBCAST_TOKEN", "JOBCAST_DEMO_TOKEN_SECONDS", "JOBCAST_SERVICE_HOST",
            "JOBCAST_SERVICE_PORT_HTTP",
            "JOBCAST_PORT_8000_TCP_ADDR", "jobcast_url", "PATH",
        ],
        "x",
    )  # fmt: skip
    assert misspelt(environ) == {
        "JOBCAST_CORS_ORIGIN": "JOBCAST_CORS_ORIGINS",
        "JOBCAST_JWT_SECRETFILE": "JOBCAST_JWT_SECRET",
        "JOBCAST_JWT_SECERT_FILE": "JOBCAST_JWT_SECRET_FILE",
        "JOBCAST_XYZZY": "",
    }


def test_private_key_excludes_a_secret() -> None:
    private = PEM.replace("PUBLIC", "PRIVATE")
    with pytest.raises(SettingsError, match="together with JOBCAST_JWT_SECRET: new tokens"):
        Settings.load({"JOBCAST_JWT_SECRET": SECRET, "JOBCAST_JWT_PRIVATE_KEY": private})


def test_private_key_is_masked() -> None:
    private = PEM.replace("PUBLIC", "PRIVATE")
    assert "MFkw" not in repr(Settings.load({"JOBCAST_JWT_PRIVATE_KEY": f"a={private}"}))


@pytest.fixture
def application() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Return a function that sets the settings of the application."""
    yield lambda values: use_defaults(lambda: values)
    use_defaults(dict)


def test_settings_of_the_application_complete_the_others(
    application: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    application({"JOBCAST_PORT": 9000, "JOBCAST_CORS_ORIGINS": ["https://a.example"]})
    assert Settings.load().port == 9000
    assert Settings.load().cors_origins == ("https://a.example",)
    assert Settings.load(celery_conf={"jobcast_port": 9001}).port == 9001
    monkeypatch.setenv("JOBCAST_PORT", "9002")
    assert Settings.load(celery_conf={"jobcast_port": 9001}).port == 9002


def test_explicit_mapping_ignores_the_settings_of_the_application(
    application: Callable[[dict[str, Any]], None],
) -> None:
    application({"JOBCAST_PORT": 9000})
    assert Settings.load({}).port == 8000


def test_key_of_the_environment_replaces_those_of_the_application(
    application: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    application({"JOBCAST_JWT_SECRETS": ["a" * 32, "b" * 32], "JOBCAST_PORT": 9000})
    monkeypatch.setenv("JOBCAST_JWT_SECRET", "e" * 32)
    assert [key.text for key in Settings.load().secrets] == ["e" * 32]
    assert Settings.load().port == 9000


def test_wrong_setting_of_the_application_names_the_variable(
    application: Callable[[dict[str, Any]], None],
) -> None:
    application({"JOBCAST_PORT": "many"})
    with pytest.raises(SettingsError, match="JOBCAST_PORT should be a port number"):
        Settings.load()

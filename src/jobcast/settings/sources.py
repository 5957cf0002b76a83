"""The sources of settings: variables, files that they name, and an application's own settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from jobcast.errors import SettingsError
from jobcast.settings.token_keys import TOKEN_KEYS

PREFIX: Final = "JOBCAST_"
FILE_SUFFIX: Final = "_FILE"

Defaults = Callable[[], Mapping[str, Any]]

_defaults: Defaults = dict


def use_defaults(defaults: Defaults) -> None:
    """Complete the settings of this process from another source, such as Django's settings.

    They apply where neither the environment nor Celery's configuration has a value.

    Args:
        defaults: returns a mapping with the ``JOBCAST_*`` variables.

    >>> use_defaults(lambda: {"JOBCAST_PORT": 9000})
    """
    global _defaults
    _defaults = defaults


def application_defaults(
    environ: Mapping[str, str], celery_conf: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the values of :func:`use_defaults`.

    Without its keys for tokens if the environment or the Celery configuration has one: the keys of
    two sources would contradict each other.
    """
    defaults = _defaults()
    has_key = any(
        given(environ, PREFIX + name.upper())[1] or given(celery_conf, PREFIX.lower() + name)[1]
        for name in TOKEN_KEYS
    )
    if not has_key:
        return defaults
    return {name: value for name, value in defaults.items() if not is_token_key(name)}


def is_token_key(variable: str) -> bool:
    """Return whether a variable, or the file that it names, has a key for tokens."""
    return variable.removeprefix(PREFIX).removesuffix(FILE_SUFFIX).lower() in TOKEN_KEYS


def given(values: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return the key that provides a setting, and its text; an empty text if it is not set.

    Raises:
        SettingsError: both the key and its ``_FILE`` variant are set, or the file cannot be read.
    """
    file_key = name + (FILE_SUFFIX if name.isupper() else FILE_SUFFIX.lower())
    text, path = text_of(values.get(name)), text_of(values.get(file_key))
    if text and path:
        raise SettingsError(
            name.upper(), f"and {file_key.upper()} are both set: only one of them may be"
        )
    return (file_key, _read(file_key.upper(), path)) if path else (name, text)


def _read(variable: str, path: str) -> str:
    try:
        text = Path(path).read_text("utf-8").strip()
    except OSError as exc:
        raise SettingsError(
            variable, f"names {path}, which cannot be read: {exc.strerror}"
        ) from exc
    except UnicodeDecodeError:
        raise SettingsError(variable, f"names {path}, which should be a text in UTF-8") from None
    if not text:
        raise SettingsError(variable, f"names {path}, which is empty")
    return text


def text_of(raw: object) -> str:
    """Return the value of a setting as text; an empty string if it is not set."""
    if raw is None:
        return ""
    return (",".join(map(str, raw)) if isinstance(raw, list | tuple) else str(raw)).strip()

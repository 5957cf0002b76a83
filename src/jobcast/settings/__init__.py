"""The settings, read once from the environment or from a given mapping.

>>> Settings.load({"JOBCAST_PORT": "9000"}).port
9000
"""

from jobcast.settings.parsers import SERVED_ON, misspelt, names
from jobcast.settings.settings import (
    DEFAULT_HANDSHAKE_TIMEOUT,
    DEFAULT_MAX_JOBS,
    DEFAULT_RESULT_LIMIT,
    DEFAULT_URL,
    Settings,
)
from jobcast.settings.sources import (
    FILE_SUFFIX,
    PREFIX,
    application_defaults,
    is_token_key,
    text_of,
    use_defaults,
)
from jobcast.settings.token_keys import NamedKey, parse_private_key
from jobcast.settings.values import DEFAULT_CONSOLE, check_origin, path_prefix

__all__ = [
    "DEFAULT_CONSOLE",
    "DEFAULT_HANDSHAKE_TIMEOUT",
    "DEFAULT_MAX_JOBS",
    "DEFAULT_RESULT_LIMIT",
    "DEFAULT_URL",
    "FILE_SUFFIX",
    "PREFIX",
    "SERVED_ON",
    "NamedKey",
    "Settings",
    "application_defaults",
    "check_origin",
    "is_token_key",
    "misspelt",
    "names",
    "parse_private_key",
    "path_prefix",
    "text_of",
    "use_defaults",
]

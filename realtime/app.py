"""The ASGI application: ``uvicorn realtime.app:app``."""

import sys

from jobcast.errors import SettingsError
from jobcast.realtime import create_app

try:
    app = create_app()
except SettingsError as exc:
    sys.exit(f"jobcast: {exc}")

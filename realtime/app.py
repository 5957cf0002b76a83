"""The ASGI application: ``uvicorn realtime.app:app``."""

import logging
import sys

from jobcast.errors import SettingsError
from jobcast.realtime import create_app

# Who connects, joins, is refused and goes: uvicorn configures only loggers of its own.
logging.basicConfig(format="%(asctime)s %(levelname)s: %(message)s")
logging.getLogger("jobcast").setLevel(logging.INFO)

try:
    app = create_app()
except SettingsError as exc:
    sys.exit(f"jobcast: {exc}")

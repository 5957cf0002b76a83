"""The ASGI application: ``jobcast serve realtime.app:app``."""

import logging
import sys

from jobcast.errors import SettingsError
from jobcast.realtime import create_app
from jobcast.settings import Settings
from realtime.console.demonstration import demonstration

# Who connects, joins, is refused and goes: uvicorn configures only loggers of its own.
logging.basicConfig(format="%(asctime)s %(levelname)s: %(message)s")
logging.getLogger("jobcast").setLevel(logging.INFO)

try:
    settings = Settings.load()
    site = demonstration(settings)
    if site is None:
        app = create_app(settings)
        logging.getLogger("jobcast.console").info(
            "the console is off: `jobcast demo` has it, with a login for demonstrations;"
            " your own session check goes into realtime/console/session.py"
        )
    else:
        from realtime.console.routes import console  # which brings Celery, to send tasks

        app = create_app(settings, routes=[console(site)])
except SettingsError as exc:
    sys.exit(f"jobcast: {exc}")

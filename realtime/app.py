"""The ASGI application: ``jobcast serve realtime.app:app``."""

import logging
import sys

from jobcast.errors import SettingsError
from jobcast.realtime import create_app
from jobcast.settings import Settings
from realtime.console.demonstration import demonstration

# uvicorn configures only its own loggers. This shows connections, joins and refusals.
logging.basicConfig(format="%(asctime)s %(levelname)s: %(message)s")
logging.getLogger("jobcast").setLevel(logging.INFO)

try:
    settings = Settings.load()
    site = demonstration(settings)
    if site is None:
        app = create_app(settings)
        logging.getLogger("jobcast.console").info(
            "the console is off: only `jobcast demo` has its login without passwords; to turn it"
            " on, see realtime/console/session.py for your own session check"
        )
    else:
        # Imported here, because it imports Celery to send tasks.
        from realtime.console.routes import console

        app = create_app(settings, routes=[console(site)])
except SettingsError as exc:
    sys.exit(f"jobcast: {exc}")

"""Django's database connections in threads of jobcast.

Django closes the connections of a thread at the end of a request, and Celery at the end of a task.
"""

from __future__ import annotations

import sys


def close_old_connections() -> None:
    """Close the connections of this thread that are broken or too old, if Django has any."""
    django = sys.modules.get("django.conf")
    db = sys.modules.get("django.db")
    if django is not None and db is not None and django.settings.configured:
        db.close_old_connections()

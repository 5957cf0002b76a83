"""Subjects of signed-in users, and the end of their connections when they sign out."""

from __future__ import annotations

import logging
import secrets
import time
from importlib import import_module
from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib.auth import SESSION_KEY

from jobcast.errors import SettingsError, TransportError
from jobcast.integrations.django import conf
from jobcast.integrations.django.database import database
from jobcast.issuing import TOKEN_TTL, default_settings
from jobcast.revocation import revoke

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from jobcast.tokens import Subject

ID_IN_SESSION: Final = "jobcast_session"  # the id of all tokens of a session
SIGN_OUT_TIMEOUT: Final = 1.0  # seconds that the request waits for the revocation at most

logger = logging.getLogger(__name__)


def subject_of(request: Any) -> str | None:
    """Return the subject of a request's user, which is the text of the primary key.

    Return None if no user is signed in.
    """
    user = getattr(request, "user", None)
    return str(user.pk) if user is not None and user.is_authenticated else None


def token_id_of(request: Any) -> str | None:
    """Return the id of the tokens of a request's session; None if no user has signed in to one.

    All tokens of a session have the same id, so that signing out can revoke them.
    """
    session = getattr(request, "session", None)
    if session is None or SESSION_KEY not in session:
        return None
    if ID_IN_SESSION not in session:
        session[ID_IN_SESSION] = secrets.token_hex(16)
    found: str = session[ID_IN_SESSION]
    return found


def name_session(request: Any = None, **_: Any) -> None:
    """Give a new session its id, before concurrent requests would each give it another one."""
    token_id_of(request)


def revoke_on_sign_out(request: Any = None, **_: Any) -> None:
    """Revoke the tokens of a session that ends, which closes its connections.

    Neither a failure nor a transport that does not answer prevents the user from signing out: the
    tokens expire.
    """
    session = getattr(request, "session", None)
    token_id = None if session is None else session.get(ID_IN_SESSION)
    if token_id:
        thread = Thread(target=_revoke, args=(token_id,), name="jobcast-sign-out", daemon=True)
        thread.start()
        thread.join(SIGN_OUT_TIMEOUT)


def _revoke(token_id: str) -> None:
    try:
        # A token of ``jobcast.submit`` may outlive those of the page.
        ttl = max(conf.token_ttl(), TOKEN_TTL)
        revoke(jti=token_id, settings=default_settings(), ttl=ttl)
    except (TransportError, SettingsError) as exc:
        logger.warning(
            "could not close the connections of a user who signed out: %s; their tokens stay valid"
            " for up to %d s (JOBCAST['TOKEN_TTL'])",
            exc, conf.token_ttl(),
        )  # fmt: skip


def authenticate(connection: HTTPConnection) -> Subject | None:
    """Return the subject of a client of ``jobcast serve`` by the cookie of its Django session.

    ``manage.py jobcast serve`` uses this function, unless ``JOBCAST`` has another ``AUTHENTICATE``.
    It queries the database, so it runs in a thread. The subject expires like a token, so that the
    client connects again, and the session is read again: it may have been deleted meanwhile.
    """
    key = connection.cookies.get(settings.SESSION_COOKIE_NAME)
    if not key:
        return None
    with database():
        return _subject_of_session(import_module(settings.SESSION_ENGINE).SessionStore(key))


class SessionCopy(dict[str, Any]):
    """The values of a session, for a reader that cannot answer the browser.

    Django gives a session another key if one of ``SECRET_KEY_FALLBACKS`` has signed its user, and
    deletes the session if none has. Only an answer of Django tells the browser of the new key.
    """

    def cycle_key(self) -> None:
        """Do nothing: the next request to Django gives the session another key."""

    def flush(self) -> None:
        self.clear()


def _subject_of_session(session: Any) -> Subject | None:
    from django.contrib.auth import get_user

    from jobcast.tokens import Subject

    request = SimpleNamespace(session=SessionCopy(session.items()))
    request.user = get_user(request)
    sub = subject_of(request)
    if sub is None:
        return None
    token_id = token_id_of(SimpleNamespace(session=session))
    if session.modified:
        session.save()
    return Subject(
        sub=sub,
        expires_at=min(session.get_expiry_date().timestamp(), time.time() + conf.token_ttl()),
        claims={"jti": token_id},
    )

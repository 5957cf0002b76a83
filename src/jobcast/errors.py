"""The exceptions that jobcast raises.

JobcastError
├── SettingsError            a setting is missing or wrong
├── InvalidJobId             a job id that cannot name a room or a key
├── InvalidMessage           an event or a request that violates the protocol
├── TokenError               a token that cannot be accepted
├── TransportError
│   └── TransportUnavailable the server behind the transport cannot be reached
│       └── PublishFailed    some events of a batch were not stored
├── ClientError
│   ├── ConnectionRefused    the server refused the connection
│   ├── JoinRefused          the server refused a request to follow a job
│   ├── FeedRefused          the server refused a request to follow a feed
│   ├── CancelRefused        the server refused a request to cancel a job
│   ├── JobFailed            the awaited job failed or was cancelled
│   └── JobNotEnded          the awaited job did not end in time
├── AddressUnavailable       a server cannot listen on its address
└── ProjectExists            the directory of a new project is not empty

JobCancelled                 the running job was cancelled; a BaseException
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobcast.masking import mask


class JobcastError(Exception):
    """The base class of jobcast's exceptions."""


class SettingsError(JobcastError):
    """A setting is missing or wrong. ``name`` is the environment variable to correct."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name = name
        self.problem = problem


class InvalidJobId(JobcastError, ValueError):
    """A job id that cannot name a room or a key."""


class InvalidMessage(JobcastError, ValueError):
    """An event or a request that violates the protocol. ``event`` is its name on the wire."""

    def __init__(self, event: str, problem: str) -> None:
        super().__init__(f"{event}: {problem}")
        self.event = event
        self.problem = problem


class TokenError(JobcastError):
    """A token that cannot be accepted. The server sends ``code`` to the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class TransportError(JobcastError):
    """A transport operation failed.

    Secrets in the message are masked: a driver or a server may echo a password.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(mask(message))


class TransportUnavailable(TransportError):
    """The server behind the transport cannot be reached. A later attempt may succeed."""


class PublishFailed(TransportUnavailable):
    """Some events of a batch were not stored. ``unsent`` has them, in order, for a retry.

    With ``held`` the transport works: the events wait for earlier events of another publisher.
    """

    def __init__(self, message: str, unsent: Sequence[Any], *, held: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent
        self.held = held


class ClientError(JobcastError):
    """The base class of the exceptions of jobcast's clients.

    ``code`` is the server's code, or one of the client's own.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ConnectionRefused(ClientError):
    """The server refused the connection, or there is no connection.

    ``code`` is the server's code, or one of the client's:

    - ``unreachable``, ``forbidden`` or ``not_found``: no connection could be opened;
    - ``unavailable`` or ``too_many_connections``: the server accepts no connection now;
    - ``token_unavailable``: the application's token function failed; its exception is the cause;
    - ``closed``: the client is not open.
    """


class JoinRefused(ClientError):
    """The server refused a request to follow the job ``job_id``."""

    def __init__(self, job_id: str, code: str, message: str) -> None:
        super().__init__(code, message)
        self.job_id = job_id


class FeedRefused(ClientError):
    """The server refused a request to follow or to list the feed ``feed``."""

    def __init__(self, feed: str, code: str, message: str) -> None:
        super().__init__(code, message)
        self.feed = feed


class CancelRefused(ClientError):
    """The server refused a request to cancel the job ``job_id``, or did not accept it in time."""

    def __init__(self, job_id: str, code: str, message: str) -> None:
        super().__init__(code, message)
        self.job_id = job_id


class JobFailed(ClientError):
    """The job ended with an error.

    ``error`` is the class name of the exception. ``reason``, which is also ``code``, says how the
    job ended, for example ``failure`` or ``revoked``.
    """

    def __init__(self, job_id: str, error: str, message: str, reason: str) -> None:
        super().__init__(reason, message)
        self.job_id = job_id
        self.error = error
        self.reason = reason


class JobNotEnded(ClientError, TimeoutError):
    """The job did not end in time.

    ``status`` is the latest state that the server has reported; None if it has not answered.
    """

    def __init__(self, job_id: str, status: str | None, timeout: float) -> None:
        if status is None:
            problem = f"the server did not answer about job {job_id} within {timeout:g} s"
        else:
            problem = f"job {job_id} is {status} after {timeout:g} s"
        super().__init__("timeout", f"{problem}: wait longer, or follow its events")
        self.job_id = job_id
        self.status = status


class AddressUnavailable(JobcastError):
    """A server cannot listen on its address. ``port`` is the requested port."""

    def __init__(self, host: str, port: int, problem: str) -> None:
        super().__init__(
            f"cannot listen on {host}, port {port}: {problem}; choose another port with --port or"
            " JOBCAST_PORT"
        )
        self.port = port


class ProjectExists(JobcastError):
    """A new project needs an empty directory, and ``directory`` is not one."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"{directory} is not an empty directory: a new project needs one")
        self.directory = directory


class JobCancelled(BaseException):
    """The running job was cancelled.

    It is no ``Exception``, so neither ``except Exception`` nor ``autoretry_for`` swallows it.
    ``message`` is the text of the request, and ``by`` the subject who cancelled the job; None if
    the request came from a process of the application.
    """

    def __init__(self, message: str = "Cancelled", by: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.by = by

    def __reduce__(self) -> tuple[type[JobCancelled], tuple[str, str | None]]:
        return type(self), (self.message, self.by)

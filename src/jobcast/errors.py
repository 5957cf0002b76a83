"""Everything jobcast raises.

JobcastError
├── SettingsError            a setting is missing or wrong
├── InvalidJobId             a job id that may not become a room or a key
├── InvalidMessage           an event or a request that breaks the protocol
├── TokenError               a token that does not authenticate
├── TransportError
│   └── TransportUnavailable the server behind the transport cannot be reached
│       └── PublishFailed    some events of a batch were not stored
├── ClientError
│   ├── ConnectionRefused    the server refused the connection
│   ├── JoinRefused          the server refused to let a job be followed
│   └── JobFailed            the job that was waited for ended with an error
├── AddressUnavailable       a server cannot listen at its address
└── ProjectExists            a new project may not be written over something
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobcast.masking import mask


class JobcastError(Exception):
    """The base of everything that jobcast raises."""


class SettingsError(JobcastError):
    """A setting is missing or wrong. ``name`` is the variable to look at."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name = name
        self.problem = problem


class InvalidJobId(JobcastError, ValueError):
    """A job id that may not become a room or a key."""


class InvalidMessage(JobcastError, ValueError):
    """An event or a request that breaks the protocol. ``event`` is its name on the wire."""

    def __init__(self, event: str, problem: str) -> None:
        super().__init__(f"{event}: {problem}")
        self.event = event
        self.problem = problem


class TokenError(JobcastError):
    """A token that does not authenticate. ``code`` goes to the client, the token never does."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class TransportError(JobcastError):
    """A transport operation failed.

    The message may come from a driver or a server that echoes a password: secrets are masked.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(mask(message))


class TransportUnavailable(TransportError):
    """The server behind the transport cannot be reached; trying again later may work."""


class PublishFailed(TransportUnavailable):
    """Some events of a batch were not stored. ``unsent`` holds them, in order, for another try.

    ``held`` says that nothing is wrong: they come after what another publisher has not sent yet.
    """

    def __init__(self, message: str, unsent: Sequence[Any], *, held: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent
        self.held = held


class ClientError(JobcastError):
    """The base of what :class:`jobcast.client.JobClient` raises. ``code`` is the server's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ConnectionRefused(ClientError):
    """The server refused the connection, or there is none.

    ``code`` is the server's, or ``unreachable``, ``token_unavailable`` (the application's function
    failed; its exception is the cause), or ``closed`` (the client is not open).
    """


class JoinRefused(ClientError):
    """The server refused to let the job be followed. ``job_id`` is the job."""

    def __init__(self, job_id: str, code: str, message: str) -> None:
        super().__init__(code, message)
        self.job_id = job_id


class JobFailed(ClientError):
    """The job ended with an error.

    ``error`` is the name of the exception's class, ``reason`` (and ``code``) how the job ended.
    """

    def __init__(self, job_id: str, error: str, message: str, reason: str) -> None:
        super().__init__(reason, message)
        self.job_id = job_id
        self.error = error
        self.reason = reason


class AddressUnavailable(JobcastError):
    """A server cannot listen at its address. ``port`` is the one that was asked for."""

    def __init__(self, host: str, port: int, problem: str) -> None:
        super().__init__(
            f"cannot listen on {host}, port {port}: {problem}; choose another port with --port or"
            " JOBCAST_PORT"
        )
        self.port = port


class ProjectExists(JobcastError):
    """A new project may not be written over something. ``directory`` is not empty."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"{directory} is not an empty directory: a new project needs one")
        self.directory = directory

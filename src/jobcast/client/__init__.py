"""The Python client of a jobcast server. Needs ``jobcast[client]``."""

from jobcast.client.job_client import (
    ConnectionState,
    JobClient,
    Token,
    check_namespace,
    check_server_url,
)

__all__ = ["ConnectionState", "JobClient", "Token", "check_namespace", "check_server_url"]

"""The Python client of a jobcast server. Needs ``jobcast[client]``."""

from jobcast.client.address import check_namespace, check_server_url
from jobcast.client.connection import ConnectionState, Token
from jobcast.client.job_client import JobClient

__all__ = ["ConnectionState", "JobClient", "Token", "check_namespace", "check_server_url"]
